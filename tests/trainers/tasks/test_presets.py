"""Presets: they exist, give what they say, and lose against options beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from spectune.trainers.tasks import PRESETS, TaskOptionError, task_from_options, task_schema
from spectune.trainers.tasks.language_model import Decoder


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_makes_a_task_that_can_be_trained(preset: str, corpus: Path) -> None:
    owner, options = PRESETS[preset]
    more: dict[str, Any] = {"context": 32, "corpus": str(corpus)} if owner == "language_model" else {}
    task = task_from_options(owner, {"preset": preset, **more})
    task.check()
    assert options.items() - more.items() <= vars(task).items() | {("context", options.get("context"))}
    assert preset in task_schema(owner)["properties"]["preset"]["enum"]


def test_options_beside_a_preset_win() -> None:
    task: Any = task_from_options("matrix_completion", {"preset": "polargrad-6.3", "rank": 7})
    assert (task.rows, task.rank) == (500, 7)


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("polargrad-6.4", "did you mean 'polargrad-6.3'"),
        ("gpt2-small", "a preset of the task language_model, not of matrix_completion"),
        (["polargrad-6.3"], "must be a text"),
        ({}, "must be a text"),
    ],
)
def test_a_preset_that_is_not_one_is_refused(preset: object, message: str) -> None:
    with pytest.raises(TaskOptionError, match=message) as caught:
        task_from_options("matrix_completion", {"preset": preset})
    assert caught.value.option == "preset"


@pytest.mark.parametrize(
    ("preset", "millions"),
    [
        ("bytes-0.2m", 0.184),
        ("bytes-1m", 0.86),
        ("bytes-5m", 4.86),
        ("bytes-26m", 25.5),
        ("gpt2-small", 123.6),
        ("qwen2.5-0.5b", 540.8),
    ],
)
def test_models_have_the_size_of_their_name(preset: str, millions: float) -> None:
    task: Any = task_from_options("language_model", {"preset": preset})
    with torch.device("meta"):
        decoder = Decoder(task, task.vocabulary or 256)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == pytest.approx(1e6 * millions, rel=0.02)
