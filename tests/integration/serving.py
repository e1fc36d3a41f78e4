"""A real `spectune serve` in a process of its own, which a test may kill and start again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from spectune.service.client import Client
from spectune.service.data_directory import DataDirectory
from spectune.service.hosting.ray_head import MARK as RAY_MARK
from spectune.service.launchers.process_tags import MARK, kill_marked
from tests.fakes.mlflow_server import place_empty_store
from tests.integration.conftest import SPECTUNE

DEADLINE_SECONDS = 120.0  # of a busy machine; what must be quick says so itself


class Serving:
    """A service with a data directory and a port that stay the same over restarts."""

    def __init__(
        self, folder: Path, *options: str, data: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.data = DataDirectory(folder / "data" if data is None else data)
        if not self.data.mlflow_store.exists():
            place_empty_store(self.data.mlflow_store)
        self._environment = {"OMP_NUM_THREADS": "1", **(environment or {})}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        self._options = options
        self.start()

    def start(self) -> None:
        """Start it; it may not answer yet."""
        command = [SPECTUNE, "serve", "--data-dir", str(self.data.root), "--port", str(self.port), *self._options]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env=os.environ | self._environment, start_new_session=True
            )

    def kill(self) -> None:
        """Kill it -9; what it started goes on."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """End it cleanly and give its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=DEADLINE_SECONDS)

    def client(self) -> Client:
        """Make a client that waits for a service that starts."""
        return Client(self.url, patience_seconds=DEADLINE_SECONDS, first_patience_seconds=2 * DEADLINE_SECONDS)

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        wait_for(self.is_ready)

    def is_ready(self) -> bool:
        """Return whether it answers."""
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5.0).status_code == 200
        except httpx.TransportError:
            return False

    def processes(self) -> list[psutil.Process]:
        """List every process of an attempt of this data directory."""
        found = []
        for process in psutil.process_iter():
            try:
                is_ours = process.environ().get(MARK, "").startswith(f"{self.data.root}:")
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def drivers(self) -> list[int]:
        """List the process ids of living drivers."""
        return sorted(each.pid for each in self.processes() if is_driver(each))

    def head(self) -> psutil.Process:
        """Return the process of its Ray head."""
        return psutil.Process(json.loads(self.data.ray_head.read_text(encoding="utf-8"))["pid"])

    def has_adopted(self) -> bool:
        """Return whether a driver was adopted by a service that was started again."""
        return "was adopted" in re.sub(r"the (Ray head|MLflow server) at \S+ was adopted", "", self.log.read_text())

    def story(self) -> str:
        """Return what the service and its drivers printed last: what a test that failed is understood by."""
        logs = [self.log, *sorted(self.data.root.rglob("driver-*.log"))]
        return "\n".join(f"== {log}\n{log.read_text(encoding='utf-8')[-3000:]}" for log in logs)

    def remove(self) -> None:
        """End everything that is left."""
        if self.process.poll() is None:
            self.terminate()
        for process in self.processes():
            process.kill()
        kill_marked(str(self.data.root), name=RAY_MARK)


def is_driver(process: psutil.Process) -> bool:
    """Return whether a process is a driver itself, and not the shell or the supervisor of one."""
    try:
        return process.cmdline()[1:4] == ["-P", "-m", "spectune.service.driver"]
    except psutil.Error:
        return False


def wait_for(condition: Callable[[], Any], *, seconds: float = DEADLINE_SECONDS) -> Any:
    """Wait until a condition holds and return what it gave."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds:g} s in vain")
