"""Whole campaigns, run by the real command in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from spectune.service.data_directory import DataDirectory
from spectune.service.ledger import Ledger
from tests.fakes.mlflow_server import place_empty_store

WORKER_TITLES = ("ray::CohortSlot", "ray::ResourceTrainable")
SPECTUNE = str(Path(sys.executable).parent / "spectune")

DOCUMENT: dict[str, Any] = {
    "name": "integration",
    "task": {"name": "matrix_completion", "rows": 30, "columns": 20, "rank": 2, "steps": 60},
    "objective": {"metric": "validation_loss", "mode": "minimize", "every_steps": 20},
    "arms": [
        {"optimizer": "muon", "space": {"lr": {"log_uniform": [0.01, 1.0]}}, "fixed": {"weight_decay": 0.0}},
        {"optimizer": "adamw", "space": {"lr": {"log_uniform": [0.001, 0.3]}}, "fixed": {"weight_decay": 0.0}},
    ],
    "search": {"sampler": "tpe", "points": 16, "search_seed": 3, "deterministic": True},
    "schedule": {"shape": "cosine"},
    "stopping": {"rule": "successive_halving", "min_steps": 20, "reduction_factor": 3},
    "resources": {"workers": 2, "cpus": 1},
}


@dataclass
class Outcome:
    """A finished run of the command."""

    data: DataDirectory
    exit_status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object that stands last on standard output."""
        answer: dict[str, Any] = json.loads(self.stdout.strip().splitlines()[-1])
        return answer


def place_modules_named_like_ours(folder: Path) -> None:
    """Place a user's modules in a folder, each of which raises when it is imported."""
    for name in ("optimizers", "trainers"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "__init__.py").write_text("raise AssertionError('this is the user's')", encoding="utf-8")
    for name in ("service", "search_spaces", "benchmarks", "tests"):
        (folder / f"{name}.py").write_text("raise AssertionError('this is the user's')", encoding="utf-8")


class Run:
    """A run of `spectune run --json` in progress.

    It starts in a folder of a user's, which is on PYTHONPATH too and holds modules named like our folders.
    It may go on with a campaign that is paused there, and have environment variables of its own.
    """

    def __init__(self, document: dict[str, Any], folder: Path, *, resume: str | None = None, **variables: str) -> None:
        place_modules_named_like_ours(folder)
        campaign = folder / "campaign.yaml"
        campaign.write_text(yaml.safe_dump(document), encoding="utf-8")
        self.data = DataDirectory(folder / "data")
        if not self.data.mlflow_store.exists():
            place_empty_store(self.data.mlflow_store)
        self._ledger: Ledger | None = None
        what = [str(campaign)] if resume is None else ["--resume", resume]
        command = [SPECTUNE, "run", *what, "--data-dir", str(self.data.root), "--json"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)} | variables,
        )

    def descendants(self) -> list[psutil.Process]:
        """List every process that the command has started and that lives."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def driver(self) -> psutil.Process | None:
        """Find the driver's process."""
        return next((each for each in self.descendants() if "spectune.service.driver" in _command(each)), None)

    def workers(self) -> list[psutil.Process]:
        """Find the processes that train; Ray names one after the class that Tune has made of ours while it trains."""
        return [each for each in self.descendants() if any(title in _command(each) for title in WORKER_TITLES)]

    def wait_for(self, condition: Callable[[Run], Any], *, timeout_seconds: float = 240.0) -> Any:
        """Wait until a condition holds and return what it gave."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := condition(self):
                return found
            time.sleep(0.1)
        self.process.send_signal(signal.SIGINT)
        stdout, stderr = self.process.communicate(timeout=60)
        raise AssertionError(f"waited in vain; the command said:\n{stdout}\n{stderr}")

    def num_observations(self) -> int:
        """Count the observations in the ledger."""
        if self._ledger is None:
            if not self.data.ledger.exists():
                return 0
            self._ledger = Ledger.at(self.data.ledger)
        return sum(len(self._ledger.observations(each.campaign_id)) for each in self._ledger.campaigns())

    def finish(self, *, timeout_seconds: float = 200.0) -> Outcome:
        """Wait for the end."""
        stdout, stderr = self.process.communicate(timeout=timeout_seconds)
        if self._ledger is not None:
            self._ledger.close()
        return Outcome(self.data, self.process.returncode, stdout, stderr)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One whole campaign that nobody disturbed; shared by the tests that only look."""
    return Run(DOCUMENT, tmp_path_factory.mktemp("finished")).finish()
