"""A small corpus and a cache folder of each test's own."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spectune.trainers import Schedule, TrialSetting, task_from_options
from spectune.trainers.tasks import Task
from tests.trainers.tasks.conftest import SMALL

WORDS = ["the", "gradient", "and", "its", "polar", "factor", "is", "orthogonal", "when", "momentum", "has", "steps"]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SPECTUNE_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Thirty files of made-up sentences, about 1 kB each."""
    folder = tmp_path / "corpus"
    (folder / "deeper").mkdir(parents=True)
    draw = random.Random(0)
    for number in range(30):
        text = " ".join(draw.choices(WORDS, k=200)) + f" end of {number}.\n"
        (folder / ("deeper" if number % 2 else ".") / f"{number}.txt").write_text(text)
    return folder


@pytest.fixture
def setting(corpus: Path) -> Callable[..., TrialSetting]:
    """Make settings of small trials; any field may be given."""

    def make(task: str = "matrix_completion", **fields: Any) -> TrialSetting:
        options: dict[str, Any] = {"rows": 40, "columns": 30, "rank": 3, "observed_fraction": 0.5}
        if task == "language_model":
            options = {"width": 32, "depth": 1, "heads": 2, "context": 32, "batch_size": 8}
            options |= {"corpus": str(corpus), "validation_batches": 2}
        defaults: dict[str, Any] = {
            "optimizer": "adamw",
            "hyperparameters": {"lr": 0.02},
            "schedule": Schedule("cosine", warmup_fraction=0.1),
            "steps": 40,
            "seed": 1,
            "data_seed": 2,
        }
        return TrialSetting(task=task_from_options(task, options), **(defaults | fields))

    return make


@pytest.fixture
def task_named(corpus: Path) -> Callable[[str], Task]:
    def make(name: str) -> Task:
        options = SMALL[name] | ({"corpus": str(corpus)} if name.startswith("language_model") else {})
        return task_from_options(name.split()[0], options)

    return make
