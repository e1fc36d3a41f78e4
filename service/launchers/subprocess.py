"""Starts drivers as child processes of their owner, each in a session of its own.

A driver's standard input is a pipe that its owner holds open: when the owner dies, however it dies, the pipe closes and
the driver pauses the campaign. Signals of the owner's terminal do not reach it; it is stopped by asking.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil

from service.data_directory import DataDirectory
from service.driver.environment import driver_environment


class SubprocessDriver:
    """A driver that runs as a child process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

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

    def kill(self) -> None:
        """End the driver and everything it started, at once; also what outlived it in its process group."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class SubprocessLauncher:
    """Starts `python -m service.driver` with the interpreter that runs now.

    Args:
        data: The data directory that owner and driver share.
    """

    def __init__(self, data: DataDirectory) -> None:
        self._data = data

    def launch(self, campaign_id: str, attempt: int) -> SubprocessDriver:
        """Start the driver of an attempt; what it prints goes to its log in the data directory."""
        log = self._data.driver_log(campaign_id, attempt)
        log.parent.mkdir(parents=True, exist_ok=True)
        # A folder named like one of our packages in the user's working directory must not shadow it: -P keeps the
        # directory off the driver's path, and Ray puts the driver's own onto its workers' path.
        command = [sys.executable, "-P", "-m", "service.driver", "--data-dir", str(self._data.root)]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, "--campaign", campaign_id, "--attempt", str(attempt)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | driver_environment(),
                cwd=log.parent,
                start_new_session=True,
            )
        return SubprocessDriver(process)
