"""A process that outlives the service which started it: in a session of its own, adopted again by id and start time."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from spectune.service.written_files import write_whole

STOP_SECONDS = 10.0


class Daemon:
    """One process, remembered in a file.

    Args:
        record: Where it is written down: its id, when it began, its ports.
        log: Where what it prints goes.
    """

    def __init__(self, record: Path, *, log: Path) -> None:
        self._record = record
        self._folder = str(record.parent)
        self._log = log
        self._process: psutil.Process | None = None
        self.ports: dict[str, int] = {}

    def is_alive(self) -> bool:
        """Return whether it runs."""
        if self._process is None:
            return False
        with suppress(psutil.NoSuchProcess):
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        return False

    def adopt(self) -> bool:
        """Find the process that an earlier service started: the same id is not enough, it must have begun then too."""
        try:
            told = json.loads(self._record.read_text(encoding="utf-8"))
            process = psutil.Process(int(told["pid"]))
            if told.get("folder", self._folder) != self._folder:  # it serves what was copied or moved from there
                return False
            if process.create_time() != told["created"] or process.status() == psutil.STATUS_ZOMBIE:
                return False
            self.ports = {str(name): int(port) for name, port in told["ports"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, psutil.NoSuchProcess):
            return False
        self._process = process
        return True

    def start(
        self, command: Sequence[str], *, ports: Mapping[str, int], environment: Mapping[str, str], folder: Path
    ) -> None:
        """Start it.

        Args:
            command: The program and its arguments.
            ports: Where it listens, by name.
            environment: All of its environment.
            folder: Its working directory.

        Raises:
            OSError: It cannot be started.
        """
        with self._log.open("ab") as output:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
            )
        self.ports = dict(ports)
        self._process = psutil.Process(child.pid)
        told = {"pid": child.pid, "created": self._process.create_time(), "ports": self.ports, "folder": self._folder}
        write_whole(self._record, json.dumps(told))

    def stop(self) -> None:
        """End it, with all that it started."""
        if self._process is None:
            return
        with suppress(psutil.NoSuchProcess):
            family = [self._process, *self._process.children(recursive=True)]
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
            _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
            for process in alive:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self._record.unlink(missing_ok=True)


def free_ports(*names: str) -> dict[str, int]:
    """Find ports of loopback that nobody uses, one for each name, all different."""
    probes = {name: socket.socket() for name in names}
    try:
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        return {name: int(probe.getsockname()[1]) for name, probe in probes.items()}
    finally:
        for probe in probes.values():
            probe.close()
