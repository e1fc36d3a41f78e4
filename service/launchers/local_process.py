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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from spectune.service.campaign.specification.sections import ResourcesSection
from spectune.service.data_directory import DataDirectory
from spectune.service.driver.environment import driver_environment
from spectune.service.launchers.process_tags import (
    MARK,
    attempt_mark,
    kept_environment,
    kill_marked,
    marked,
    process_name,
)

KILLED = -9
_FIRST = 1  # the attempt that a driver may stand by for


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

    def begin(self) -> bool:
        """Tell a driver that stands by that its campaign exists; False where it has ended."""
        assert self._process.stdin is not None, "only a driver with an owner stands by"
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
        return self._process.poll() is None

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
        kill_marked(self._mark)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def end_remains(self) -> list[str]:
        """Name the processes of the attempt that live."""
        return [process_name(process) for process in marked(self._mark)]


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
        kill_marked(self._mark)

    def end_remains(self) -> list[str]:
        """Name the processes of the attempt that live."""
        return [process_name(process) for process in marked(self._mark)]


class SubprocessLauncher:
    """Starts `python -m spectune.service.driver` with the interpreter that runs now.

    Args:
        data: The data directory that owner and driver share.
        database_url: The ledger, where it is not in the data directory.
        outlives_owner: Whether drivers go on when this process ends.
    """

    sees_processes = True

    def __init__(self, data: DataDirectory, *, database_url: str | None = None, outlives_owner: bool = False) -> None:
        self._data = data
        self._database_url = database_url
        self._outlives_owner = outlives_owner
        self._standby: SubprocessDriver | None = None
        self._standby_for = ""

    def problem(self) -> str | None:
        """Return why nothing can be launched just now: nothing ever stands in the way of a process."""
        return None

    @contextmanager
    def standing_by(
        self, campaign_id: str, resources: ResourcesSection, *, is_portable: bool = False
    ) -> Iterator[None]:
        """Have a driver start its Ray while its campaign is still being checked; it ends if that is never launched.

        Args:
            campaign_id: Of the campaign that there may be.
            resources: What its workers need.
            is_portable: Whether its arithmetic is portable.
        """
        options = ["--standby", resources.model_dump_json(), *(["--portable"] if is_portable else [])]
        self._standby = self._start(campaign_id, _FIRST, options, output=subprocess.DEVNULL, folder=Path("/"))
        self._standby_for = campaign_id
        try:
            yield
        finally:
            if self._standby is not None:
                self._standby.kill()
                self._standby = None

    def launch(self, campaign_id: str, attempt: int) -> SubprocessDriver:
        """Start the driver of an attempt; what it prints goes to its log in the data directory."""
        if self._standby is not None and (campaign_id, attempt) == (self._standby_for, _FIRST):
            standby, self._standby = self._standby, None
            if standby.begin():
                return standby
            standby.kill()  # it has ended already, for whatever reason
        log = self._data.driver_log(campaign_id, attempt)
        log.parent.mkdir(parents=True, exist_ok=True)
        options = []
        if self._outlives_owner:
            options += ["--exit-file", str(self._data.driver_exit(campaign_id, attempt))]
        with log.open("ab") as output:
            return self._start(campaign_id, attempt, options, output=output, folder=log.parent)

    def _start(
        self, campaign_id: str, attempt: int, options: list[str], *, output: int | IO[bytes], folder: Path
    ) -> SubprocessDriver:
        mark = self._mark(campaign_id, attempt)
        # A folder named like one of our packages in the user's working directory must not shadow it: -P keeps the
        # directory off the driver's path, and Ray puts the driver's own onto its workers' path.
        command = [sys.executable, "-P", "-m", "spectune.service.driver", "--data-dir", str(self._data.root)]
        command += ["--campaign", campaign_id, "--attempt", str(attempt), *options]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if self._outlives_owner else subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            bufsize=0,  # what a lost driver did not take is not written again when its pipe is closed
            env=self._environment() | {MARK: mark},
            cwd=folder,
            start_new_session=True,
        )
        return SubprocessDriver(process, mark)

    def find(self, campaign_id: str, attempt: int) -> AdoptedDriver | None:
        """Find the driver of an attempt that another process has started; None where none lives or has left a word."""
        mark = self._mark(campaign_id, attempt)
        for process in marked(mark):
            with suppress(psutil.Error):
                if "spectune.service.driver" in process.cmdline():
                    return AdoptedDriver(process, mark, self._data, campaign_id, attempt)
        return None

    def end_remains(self, campaign_id: str, attempt: int) -> list[str]:
        """End whatever is left of an attempt without a driver, and name what could not be ended."""
        mark = self._mark(campaign_id, attempt)
        kill_marked(mark)
        return [process_name(process) for process in marked(mark)]

    def exit_code(self, campaign_id: str, attempt: int) -> int | None:
        """Return what the driver of an attempt left; None where it left nothing."""
        try:
            return int(self._data.driver_exit(campaign_id, attempt).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def _mark(self, campaign_id: str, attempt: int) -> str:
        return attempt_mark(self._data, campaign_id, attempt)

    def _environment(self) -> dict[str, str]:
        return kept_environment(self._database_url) | driver_environment()
