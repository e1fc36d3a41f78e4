"""The Ray of a service on one machine: a head with its Jobs API, asked with a token, adopted after a restart.

Its processes carry the data directory's name: what a killed head leaves, drivers and workers with it, is ended before
the next head starts, so that no campaign runs twice. Nothing of a head is worth keeping: the ledger knows everything.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import shutil
import sys
from pathlib import Path

from spectune.service.data_directory import DataDirectory
from spectune.service.driver.environment import own_ray_environment
from spectune.service.driver.temporary_folder import ray_folder
from spectune.service.hosting.daemon import Daemon, free_ports
from spectune.service.launchers.process_tags import kept_environment, kill_marked
from spectune.service.written_files import write_whole

MARK = "SPECTUNE_RAY"
OBJECT_STORE_BYTES = 200 * 1024**2  # verdicts and reports are small; data are memory-mapped files
_PORTS = {
    "gcs": "--port",
    "dashboard": "--dashboard-port",
    "agent": "--dashboard-agent-listen-port",
    "agent-grpc": "--dashboard-agent-grpc-port",
    "runtime-environments": "--runtime-env-agent-port",
    "metrics": "--metrics-export-port",
    "client": "--ray-client-server-port",
}

_log = logging.getLogger(__name__)


class RayHead:
    """One Ray node that is head and worker.

    Args:
        data: Where its record and its token are.
        num_cpus: CPUs that it gives to campaigns.
        database_url: The ledger, where it is not in the data directory.
    """

    def __init__(self, data: DataDirectory, *, num_cpus: int, database_url: str | None) -> None:
        self._data = data
        self._num_cpus = num_cpus
        self._database_url = database_url
        self._process = Daemon(data.ray_head, log=data.ray_log)

    @property
    def address(self) -> str:
        """Where its Jobs API listens."""
        return f"http://127.0.0.1:{self._process.ports.get('dashboard', 0)}"

    def token(self) -> str:
        """Read what its Jobs API wants to be told; made when it is first asked for, and readable by nobody else."""
        path = self._data.ray_token
        if not path.exists():
            write_whole(path, secrets.token_hex(32), mode=0o600)
        return path.read_text(encoding="ascii").strip()

    def ensure(self) -> None:
        """Adopt the head, or start one; it takes some seconds before it answers."""
        if self._process.is_alive():
            return
        if self._process.adopt():
            _log.info("the Ray head at %s was adopted", self.address)
        else:
            self._start()

    def stop(self) -> None:
        """End it, with every driver and worker on it."""
        self._process.stop()
        self._clear()

    def _start(self) -> None:
        self._clear()
        self.token()
        ports = free_ports(*_PORTS)
        folder = self._folder()
        folder.mkdir(mode=0o700, exist_ok=True)
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"]
        command += [f"--num-cpus={self._num_cpus}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--include-log-monitor=false"]
        command += [f"{option}={ports[name]}" for name, option in _PORTS.items()]
        self._process.start(command, ports=ports, environment=self._environment(), folder=self._data.root)
        _log.info("the Ray head starts at %s", self.address)

    def _environment(self) -> dict[str, str]:
        environment = kept_environment(self._database_url) | own_ray_environment()
        for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS"):
            environment.pop(name, None)
        return environment | {"RAY_AUTH_TOKEN_PATH": str(self._data.ray_token), MARK: str(self._data.root)}

    def _folder(self) -> Path:
        """Return Ray's own folder, in which its sockets lie."""
        return ray_folder() / hashlib.sha256(str(self._data.root).encode()).hexdigest()[:10]

    def _clear(self) -> None:
        kill_marked(str(self._data.root), name=MARK)
        shutil.rmtree(self._folder(), ignore_errors=True)
