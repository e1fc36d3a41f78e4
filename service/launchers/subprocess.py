"""Starts drivers as processes of this machine, each in a session of its own.

Under `spectune run` a driver belongs to its owner: its standard input is a pipe that the owner holds open, and when the
owner dies, however it dies, the pipe closes and the driver pauses the campaign. Under `spectune serve` it outlives its
owner and leaves its exit code in a file, so that a restarted service finds it again, or what became of it. Whatever an
attempt starts carries the attempt's name in its environment: nothing that it left can be overlooked.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil

from service.data_directory import DataDirectory
from service.driver.environment import driver_environment

MARK = "SPECTUNE_ATTEMPT"
KILLED = -9
_VANISH_SECONDS = 3.0
_POLL_SECONDS = 0.05


class SubprocessDriver:
    """A driver that runs as a child process.

    Args:
        process: The driver.
        mark: What everything that it starts carries in its environment.
    """

    def __init__(self, process: subprocess.Popen[bytes], mark: str) -> None:
        self._process = process
        self._mark = mark

    @property
    def pid(self) -> int:
        """The driver's process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code (negative for a signal), or None while the driver lives."""
        return self._process.poll()

    def request_stop(self) -> None:
        """Ask the driver to cancel the campaign cleanly."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def request_pause(self) -> None:
        """Ask the driver to pause the campaign cleanly."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the driver and everything it started, at once; also what outlived it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        _kill_marked(self._mark)
        self._process.wait()

    def remains(self) -> list[str]:
        """Name the processes of the attempt that live."""
        return [_name(process) for process in _marked(self._mark)]


class AdoptedDriver:
    """A driver that a service started which is gone.

    Args:
        process: The driver; None where it has ended.
        mark: What everything that it started carries in its environment.
        exit_code: What it left, once it has ended.
    """

    def __init__(self, process: psutil.Process, mark: str, data: DataDirectory, campaign_id: str, attempt: int) -> None:
        self._process = process
        self._mark = mark
        self._exit_file = data.driver_exit(campaign_id, attempt)

    @property
    def pid(self) -> int:
        """The driver's process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, or None while the driver lives; that of a killed one is not known and taken as -9."""
        with suppress(psutil.NoSuchProcess):
            if self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE:
                return None
        with suppress(OSError, ValueError):
            return int(self._exit_file.read_text(encoding="ascii"))
        return KILLED

    def request_stop(self) -> None:
        """Ask the driver to cancel the campaign cleanly."""
        with suppress(psutil.NoSuchProcess):
            self._process.send_signal(signal.SIGINT)

    def request_pause(self) -> None:
        """Ask the driver to pause the campaign cleanly."""
        with suppress(psutil.NoSuchProcess):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the driver and everything it started, at once."""
        _kill_marked(self._mark)

    def remains(self) -> list[str]:
        """Name the processes of the attempt that live."""
        return [_name(process) for process in _marked(self._mark)]


class SubprocessLauncher:
    """Starts `python -m service.driver` with the interpreter that runs now.

    Args:
        data: The data directory that owner and driver share.
        database_url: The ledger, where it is not in the data directory.
        outlives_owner: Whether drivers go on when this process ends.
    """

    def __init__(self, data: DataDirectory, *, database_url: str | None = None, outlives_owner: bool = False) -> None:
        self._data = data
        self._database_url = database_url
        self._outlives_owner = outlives_owner

    def launch(self, campaign_id: str, attempt: int) -> SubprocessDriver:
        """Start the driver of an attempt; what it prints goes to its log in the data directory."""
        log = self._data.driver_log(campaign_id, attempt)
        log.parent.mkdir(parents=True, exist_ok=True)
        mark = self._mark(campaign_id, attempt)
        # A folder named like one of our packages in the user's working directory must not shadow it: -P keeps the
        # directory off the driver's path, and Ray puts the driver's own onto its workers' path.
        command = [sys.executable, "-P", "-m", "service.driver", "--data-dir", str(self._data.root)]
        command += ["--campaign", campaign_id, "--attempt", str(attempt)]
        if self._outlives_owner:
            command += ["--exit-file", str(self._data.driver_exit(campaign_id, attempt))]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if self._outlives_owner else subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment() | {MARK: mark},
                cwd=log.parent,
                start_new_session=True,
            )
        return SubprocessDriver(process, mark)

    def find(self, campaign_id: str, attempt: int) -> AdoptedDriver | None:
        """Find the driver of an attempt that another process has started; None where none lives or has left a word."""
        mark = self._mark(campaign_id, attempt)
        for process in _marked(mark):
            with suppress(psutil.Error):
                if "service.driver" in process.cmdline():
                    return AdoptedDriver(process, mark, self._data, campaign_id, attempt)
        return None

    def remains(self, campaign_id: str, attempt: int) -> list[str]:
        """End whatever is left of an attempt without a driver, and name what could not be ended."""
        mark = self._mark(campaign_id, attempt)
        _kill_marked(mark)
        return [_name(process) for process in _marked(mark)]

    def exit_code(self, campaign_id: str, attempt: int) -> int | None:
        """Tell what the driver of an attempt left; None where it left nothing."""
        try:
            return int(self._data.driver_exit(campaign_id, attempt).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def _mark(self, campaign_id: str, attempt: int) -> str:
        return f"{self._data.root}:{campaign_id}:{attempt}"

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name not in _KEPT_BACK}
        if self._database_url is not None:
            environment["SPECTUNE_DATABASE_URL"] = self._database_url
        if "PYTHONPATH" in environment:
            environment["PYTHONPATH"] = absolute_path(environment["PYTHONPATH"])
        return environment | driver_environment()


def absolute_path(search_path: str) -> str:
    """Write a search path so that it means the same in a driver's own folder; an empty entry stays what it is."""
    return os.pathsep.join(each and os.path.abspath(each) for each in search_path.split(os.pathsep))


# What nothing but the service itself needs; workers may need whatever else there is, to read data for instance.
_KEPT_BACK = (
    "SPECTUNE_DATABASE_URL",
    "SPECTUNE_API_KEY",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)


def _marked(mark: str) -> Iterator[psutil.Process]:
    """Find all living processes with a mark."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _kill_marked(mark: str) -> None:
    """End all processes with a mark, and those that they start meanwhile."""
    deadline = time.monotonic() + _VANISH_SECONDS
    while (found := list(_marked(mark))) and time.monotonic() < deadline:
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(_POLL_SECONDS)


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"process {process.pid} ({process.name()})"
    return f"process {process.pid}"
