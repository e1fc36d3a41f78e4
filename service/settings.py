"""What the service is told by its environment; every variable, its meaning and its check stand here.

SPECTUNE_DATABASE_URL   the ledger, a URL of SQLAlchemy; without it SQLite in the data directory
SPECTUNE_RAY_ADDRESS    the Jobs API of a Ray cluster, as http://ray-head:8265, whose nodes have the data directory
                        at the same path; without it `serve` starts a Ray of its own. Its token is RAY_AUTH_TOKEN, or in
                        the file RAY_AUTH_TOKEN_PATH, and SPECTUNE_CPUS says how much of it campaigns may use
SPECTUNE_MLFLOW_URI     an MLflow server of one's own; without it `serve` starts one. Who asks it, and which
                        certificates are trusted, is said in MLflow's own variables (service/tracking/health.py)
SPECTUNE_MLFLOW_PAGES   where people open that MLflow; without it at the same address
SPECTUNE_TASK_MODULES   modules, separated by commas, from which campaigns may name tasks of their own
SPECTUNE_CORPORA        folders, separated by colons, from which campaigns may read text
SPECTUNE_CPUS           CPUs that all running campaigns share; without it those of this machine
SPECTUNE_GPUS           GPUs that they share; without it those of this machine, or in a cluster as many as Ray has free
SPECTUNE_DATA_ACCESS    who may read the data directory: owner (as without it), group (and write: for a cluster whose
                        nodes are different users of one group), or all
SPECTUNE_MAX_RUNNING    campaigns that run at the same time, 8 without it
SPECTUNE_URL, SPECTUNE_API_KEY   the server that the client verbs speak to, and with what key
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from spectune.service.data_directory import Access
from spectune.service.errors import SettingsError

_WHO_ASKS = {
    "SPECTUNE_RAY_ADDRESS": "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH",
    "SPECTUNE_MLFLOW_URI": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "SPECTUNE_MLFLOW_PAGES": "nothing: people log in",
}
OUR_PACKAGE = "spectune"


@dataclass(frozen=True)
class Settings:
    """The settings of one service.

    Attributes:
        database_url: Where the ledger is; None for the data directory. It may hold a password.
        ray_address: The Jobs API of a Ray that is not ours; None to start one.
        mlflow_uri: An MLflow that is not ours; None to start one.
        mlflow_pages: Where people open it; None for the same address.
        task_modules: Modules whose tasks campaigns may name.
        corpora: Folders below which campaigns may read text.
        num_cpus: CPUs that running campaigns share.
        num_gpus: GPUs that they share; None where nothing was said.
        max_running: Campaigns that run at the same time.
        data_access: Who may read the data directory.
    """

    database_url: str | None = None
    ray_address: str | None = None
    mlflow_uri: str | None = None
    mlflow_pages: str | None = None
    task_modules: tuple[str, ...] = ()
    corpora: tuple[Path, ...] = ()
    num_cpus: int = 1
    num_gpus: int | None = None
    max_running: int = 8
    data_access: Access = Access.OWNER

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: One of them cannot be used.
        """
        return cls(
            database_url=environment.get("SPECTUNE_DATABASE_URL") or None,
            ray_address=_address(environment, "SPECTUNE_RAY_ADDRESS"),
            mlflow_uri=_address(environment, "SPECTUNE_MLFLOW_URI"),
            mlflow_pages=_address(environment, "SPECTUNE_MLFLOW_PAGES"),
            task_modules=_modules(environment.get("SPECTUNE_TASK_MODULES", "")),
            corpora=_folders(environment.get("SPECTUNE_CORPORA", "")),
            num_cpus=_count(environment, "SPECTUNE_CPUS", os.cpu_count() or 1),
            num_gpus=_count(environment, "SPECTUNE_GPUS", 0) if environment.get("SPECTUNE_GPUS") else None,
            max_running=_count(environment, "SPECTUNE_MAX_RUNNING", 8),
            data_access=_access(environment),
        )


def _address(environment: Mapping[str, str], name: str) -> str | None:
    """Read an address of HTTP, which goes into links and logs and so may hold no password."""
    text = environment.get(name)
    if not text:
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        shown = text.rpartition("@")[2]
        raise SettingsError(f"{name}: an address such as https://mlflow.example:5000 is needed: got {shown!r}")
    if parts.username is not None or parts.password is not None:
        raise SettingsError(
            f"{name}: who asks is said in {_WHO_ASKS[name]}, not in the address: "
            f"got a user name before {parts.hostname!r}"
        )
    return text.rstrip("/")


def _modules(text: str) -> tuple[str, ...]:
    modules = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise SettingsError(f"SPECTUNE_TASK_MODULES: the name of a module is needed: got {name!r}")
        if name.split(".")[0] == OUR_PACKAGE:
            raise SettingsError(f"SPECTUNE_TASK_MODULES: this package is the service's own: got {name!r}")
    return modules


def _folders(text: str) -> tuple[Path, ...]:
    folders = tuple(Path(name) for name in text.split(":") if name)
    for folder in folders:
        if not folder.is_absolute():
            raise SettingsError(f"SPECTUNE_CORPORA: absolute paths are needed: got {str(folder)!r}")
    return tuple(folder.resolve() for folder in folders)


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or int(text[:9]) < 1:
        raise SettingsError(f"{name}: a whole number of at least 1 is needed: got {text!r}")
    return int(text)


def _access(environment: Mapping[str, str]) -> Access:
    text = environment.get("SPECTUNE_DATA_ACCESS") or Access.OWNER
    try:
        return Access(text)
    except ValueError as error:
        raise SettingsError(f"SPECTUNE_DATA_ACCESS: one of {', '.join(Access)} is needed: got {text!r}") from error
