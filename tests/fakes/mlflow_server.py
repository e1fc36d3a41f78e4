"""A real `mlflow server` of one's own for a test: a free port, a store of its own, files that vanish with it."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import httpx
import psutil

START_SECONDS = 150.0
_STOP_SECONDS = 10.0


class PrivateMlflow:
    """A running server.

    Args:
        store: The address of its store; None makes SQLite in a folder of its own.
        workers: How many processes answer.
        arguments: Further arguments of `mlflow server`.
        environment: Further variables.
    """

    def __init__(
        self,
        *,
        store: str | None = None,
        workers: int = 1,
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="spectune-mlflow-"))
        self.store = store or f"sqlite:///{place_empty_store(self._folder / 'mlflow.sqlite')}"
        self._workers = workers
        self._arguments = arguments
        self._environment = dict(environment or {})
        self._process: psutil.Process | None = None
        self.port = _free_port()
        try:
            self.start()
        except BaseException:
            self.remove()
            raise

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_alive(self) -> bool:
        """Whether it was not killed."""
        return self._process is not None

    @property
    def log(self) -> Path:
        """What it says."""
        return self._folder / "log"

    def start(self, *, wait: bool = True) -> None:
        """Start it, or start it again on the same store and port."""
        command = [str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", str(self._workers), "--backend-store-uri", self.store]
        command += ["--artifacts-destination", (self._folder / "artifacts").as_uri(), *self._arguments]
        with self.log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | self._environment,
                start_new_session=True,
            )
        self._process = psutil.Process(child.pid)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.address}/health", timeout=2.0).raise_for_status()  # /version may ask for a password
            except httpx.HTTPError:
                time.sleep(0.2)
            else:
                return
        raise TimeoutError(f"the MLflow server did not start: got {self.log.read_text(encoding='utf-8')}")

    def processes(self) -> list[psutil.Process]:
        """List its processes, none where it was killed or died."""
        parent = self._process  # another thread may kill it
        try:
            return [parent, *parent.children(recursive=True)] if parent is not None else []
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """Kill every process of it at once; what is in its store stays."""
        assert self._process is not None
        family = self.processes()
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=_STOP_SECONDS)
        self._process = None

    def remove(self) -> None:
        """End it and delete its files."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._folder)


def place_empty_store(path: Path) -> Path:
    """Put a store on SQLite without a run somewhere; its tables are made once, for that takes seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_empty_store(), path)
    return path


@cache
def _empty_store() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="spectune-mlflow-"))
    atexit.register(shutil.rmtree, folder)
    path = folder / "mlflow.sqlite"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's and SQLAlchemy's, of each other
        from mlflow.tracking._tracking_service.utils import _get_store  # two seconds

        _get_store(f"sqlite:///{path}").engine.dispose()
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
