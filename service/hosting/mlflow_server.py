"""The MLflow server of a service: a process in a session of its own, adopted after a restart, replaced when it dies."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import httpx

from spectune.service.data_directory import DataDirectory
from spectune.service.hosting.daemon import Daemon, free_ports

_HIDDEN = ("SPECTUNE_DATABASE_URL", "SPECTUNE_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
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
        self._process = Daemon(data.mlflow_server, log=data.mlflow_log)
        # Making a client takes thirty times as long as asking; it keeps no connection, which might be stale.
        self._http = httpx.Client(timeout=2.0, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def ensure(self) -> None:
        """Adopt the process that serves the store, or start one."""
        if self._process.is_alive():
            return
        if self._process.adopt():
            self._port = self._process.ports["http"]
            _log.info("the MLflow server at %s was adopted", self.address)
        else:
            self._start()

    def problem(self) -> str | None:
        """Return why it cannot be used just now; None where it answers."""
        try:
            answer = self._http.get(f"{self.address}/version")
        except httpx.HTTPError as error:
            return f"the MLflow server does not answer: {type(error).__name__}"
        return None if answer.status_code == 200 else f"the MLflow server answers {answer.status_code}"

    def stop(self) -> None:
        """End it, with all its workers."""
        self._http.close()
        self._process.stop()

    def _start(self) -> None:
        self._port = self._port or free_ports("http")["http"]
        data = self._data
        data.mlflow_artifacts.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "spectune.service.tracking.store_file", str(data.mlflow_store)]
        command += [str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--workers", "1", "--backend-store-uri", data.mlflow_uri]
        command += ["--artifacts-destination", data.mlflow_artifacts.as_uri()]
        environment = {name: value for name, value in os.environ.items() if name not in _HIDDEN}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        self._process.start(command, ports={"http": self._port}, environment=environment, folder=data.root)
        _log.info("the MLflow server starts at %s", self.address)
