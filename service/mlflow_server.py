"""The MLflow server of a service: a process in a session of its own, adopted after a restart, replaced when it dies."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from service.data_directory import DataDirectory, write_whole

_STOP_SECONDS = 10.0
_log = logging.getLogger(__name__)


class MlflowServer:
    """Serves the data directory's MLflow store on loopback.

    Args:
        data: Where the store is.
        port: Where to listen; 0 takes any free port.
    """

    def __init__(self, data: DataDirectory, *, port: int) -> None:
        self._data = data
        self._port = port
        self._process: psutil.Process | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def ensure(self) -> None:
        """Adopt the process that serves the store, or start one."""
        if self._is_alive():
            return
        self._process = self._adopt()
        if self._process is None:
            self._start()

    def problem(self) -> str | None:
        """Say why it cannot be used just now; None where it answers."""
        try:
            answer = httpx.get(f"{self.address}/version", timeout=2.0)
        except httpx.HTTPError as error:
            return f"the MLflow server does not answer: {type(error).__name__}"
        return None if answer.status_code == 200 else f"the MLflow server answers {answer.status_code}"

    def stop(self) -> None:
        """End it, with all its workers."""
        if self._process is None:
            return
        with suppress(psutil.NoSuchProcess):
            family = [self._process, *self._process.children(recursive=True)]
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
            _, alive = psutil.wait_procs(family, timeout=_STOP_SECONDS)
            for process in alive:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self._data.mlflow_server.unlink(missing_ok=True)

    def _is_alive(self) -> bool:
        if self._process is None:
            return False
        with suppress(psutil.NoSuchProcess):
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        return False

    def _adopt(self) -> psutil.Process | None:
        """Find the process that an earlier service started: the same id is not enough, it must have begun then too."""
        try:
            told = json.loads(self._data.mlflow_server.read_text(encoding="utf-8"))
            process = psutil.Process(int(told["pid"]))
            if process.create_time() != told["created"] or process.status() == psutil.STATUS_ZOMBIE:
                return None
            self._port = int(told["port"])
        except (OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
            return None
        _log.info("the MLflow server at %s was adopted", self.address)
        return process

    def _start(self) -> None:
        self._port = self._port or _free_port()
        data = self._data
        data.mlflow_artifacts.mkdir(parents=True, exist_ok=True)
        command = [str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--workers", "1", "--backend-store-uri", data.mlflow_uri]
        command += ["--artifacts-destination", data.mlflow_artifacts.as_uri()]
        hidden = ("SPECTUNE_DATABASE_URL", "SPECTUNE_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        with data.mlflow_log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=data.root,
                env=environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )
        self._process = psutil.Process(child.pid)
        told = {"pid": child.pid, "created": self._process.create_time(), "port": self._port}
        write_whole(data.mlflow_server, json.dumps(told))
        _log.info("the MLflow server starts at %s", self.address)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
