"""What an attempt starts carries the attempt's name in its environment, so that nothing it left can be overlooked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil

from spectune.service.data_directory import DataDirectory

MARK = "SPECTUNE_ATTEMPT"
_VANISH_SECONDS = 3.0
_POLL_SECONDS = 0.05

# What nothing but the service itself needs; workers may need whatever else there is, to read data for instance.
_KEPT_BACK = (
    "SPECTUNE_DATABASE_URL",
    "SPECTUNE_API_KEY",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)


def attempt_mark(data: DataDirectory, campaign_id: str, attempt: int) -> str:
    """Name an attempt as no other on this machine is named."""
    return f"{data.root}:{campaign_id}:{attempt}"


def kept_environment(database_url: str | None) -> dict[str, str]:
    """Return the environment of this process without what a driver does not need; it needs the ledger's address."""
    environment = {name: value for name, value in os.environ.items() if name not in _KEPT_BACK}
    if "PYTHONPATH" in environment:
        environment["PYTHONPATH"] = absolute_path(environment["PYTHONPATH"])
    return environment if database_url is None else environment | {"SPECTUNE_DATABASE_URL": database_url}


def absolute_path(search_path: str) -> str:
    """Write a search path so that it means the same in a driver's own folder; an empty entry stays what it is."""
    return os.pathsep.join(each and os.path.abspath(each) for each in search_path.split(os.pathsep))


def marked(value: str, *, name: str = MARK) -> Iterator[psutil.Process]:
    """Find all living processes whose environment holds a mark."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def kill_marked(value: str, *, name: str = MARK) -> None:
    """End all processes with a mark, and those that they start meanwhile."""
    deadline = time.monotonic() + _VANISH_SECONDS
    while (found := list(marked(value, name=name))) and time.monotonic() < deadline:
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(_POLL_SECONDS)


def process_name(process: psutil.Process) -> str:
    """Name a process for people."""
    with suppress(psutil.Error):
        return f"process {process.pid} ({process.name()})"
    return f"process {process.pid}"
