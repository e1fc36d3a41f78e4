"""What a task may do beside raising and returning: each fails its own trial, and the worker goes on."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spectune.trainers.schedules import Schedule
from spectune.trainers.setting import TrialSetting
from spectune.trainers.tasks.options import TaskOptionError
from spectune.trainers.tasks.own import rehearse
from spectune.trainers.tasks.task import TaskOptions
from spectune.trainers.user_code import UserCodeError, checked_metrics, told
from spectune.trainers.worker.messages import Assignment, MemberReport, SlotCommand, TrialEnding
from spectune.trainers.worker.slot import Slot, SlotOptions
from tests.fakes.command_source import ScriptedCommands


class Extra(nn.Linear):
    """A layer whose state holds whatever the test sets."""

    extra: ClassVar[Callable[[], Any] | None] = None

    def get_extra_state(self) -> Any:
        return None if Extra.extra is None else Extra.extra()

    def set_extra_state(self, state: Any) -> None:
        pass


@dataclass(frozen=True)
class Hostile(TaskOptions):
    """A task with hooks that the test sets."""

    name: ClassVar[str] = "hostile"
    hooks: ClassVar[dict[str, Callable[[], Any]]] = {}

    @property
    def items_per_step(self) -> int:
        return self._hooked("items_per_step", 1)

    def build(self, generator: torch.Generator) -> nn.Module:
        model = Extra(3, 2)
        model.weight.data.normal_(generator=generator)
        return model

    def batch(self, step: int, seed: int) -> tuple[Tensor, ...]:
        return (torch.full((1, 3), 1.0 + seed),)

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        loss: Tensor = model(batch[0]).square().mean()
        return loss

    def measure(self, model: nn.Module, seed: int) -> dict[str, Tensor]:
        weight: Tensor = model.weight
        return self._hooked("measure", {"validation_loss": weight.square().sum()})

    def _hooked(self, name: str, otherwise: Any) -> Any:
        return self.hooks[name]() if name in self.hooks else otherwise


@pytest.fixture(autouse=True)
def good_again() -> Iterator[None]:
    yield
    Hostile.hooks.clear()
    Extra.extra = None


def play(folder: Path, mischief: Callable[[], None], *, is_alone: bool) -> list[MemberReport]:
    """Train two trials, which misbehave after the first report."""
    setting = TrialSetting(Hostile(), "adamw", {"lr": 0.01}, Schedule(), 9, seed=0, data_seed=0)
    trials = [Assignment(number, replace(setting, seed=number), (3, 6, 9), is_alone=is_alone) for number in range(2)]
    commands = ScriptedCommands(
        [SlotCommand(admit=tuple(trials)), SlotCommand(checkpoint=True), SlotCommand(finish=True)]
    )
    slot = Slot("s", commands, SlotOptions(str(folder), "attempt-1", 1e9, cpus=1))
    first = slot.step()
    assert first is not None
    assert [each.ending for each in first.members] == [TrialEnding.REACHED] * 2, first.members[0].message
    mischief()
    second = slot.step()
    assert second is not None
    return second.members


both = pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "together"])


def check_failed(reports: list[MemberReport], sentence: str) -> None:
    assert [(each.trial, each.ending) for each in reports] == [(0, TrialEnding.FAILED), (1, TrialEnding.FAILED)]
    assert all(sentence in each.message for each in reports), reports[0].message


@both
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "Hostile.items_per_step gave None instead of a number"),
        ("many", "Hostile.items_per_step gave 'many' instead of a number"),
        (torch.ones(2), "Hostile.items_per_step gave a tensor of shape (2,) instead of a number"),
        (1j, "Hostile.items_per_step gave 1j instead of a number"),
        (10**400, "Hostile.items_per_step gave a number too large for a float instead of a number"),
        (math.nan, "Hostile.items_per_step must be finite, is nan"),
    ],
    ids=["none", "text", "tensor", "complex", "huge", "nan"],
)
def test_items_per_step_that_are_no_number_fail_their_trial(
    tmp_path: Path, is_alone: bool, value: Any, sentence: str
) -> None:
    hook = {"items_per_step": lambda: value}
    check_failed(play(tmp_path, lambda: Hostile.hooks.update(hook), is_alone=is_alone), sentence)


@both
@pytest.mark.parametrize("value", [torch.ones(2), torch.tensor(1j), None], ids=["tensor", "complex", "none"])
def test_a_measure_that_is_no_number_fails_its_trial(tmp_path: Path, is_alone: bool, value: Any) -> None:
    hook = {"measure": lambda: {"validation_loss": value}}
    reports = play(tmp_path, lambda: Hostile.hooks.update(hook), is_alone=is_alone)
    check_failed(reports, "Hostile.evaluate gave")


@both
@pytest.mark.parametrize("value", [0.5, np.float32(0.5), torch.tensor(0.5, dtype=torch.float16)])
def test_a_measure_of_any_kind_of_number_is_a_float(tmp_path: Path, is_alone: bool, value: Any) -> None:
    hook = {"measure": lambda: {"validation_loss": value}}
    reports = play(tmp_path, lambda: Hostile.hooks.update(hook), is_alone=is_alone)
    assert [each.metrics["validation_loss"] for each in reports] == [0.5, 0.5]
    assert {type(value) for each in reports for value in each.metrics.values()} == {float}


def refuse() -> Any:
    raise RuntimeError("no state")


@both
@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (refuse, "RuntimeError: no state"),
        (lambda: lambda: 1, "must be a tensor or a plain value: got function"),
        (lambda: sys.exit(4), "SystemExit: 4"),
        (lambda: object(), "must be a tensor or a plain value: got object"),
    ],
    ids=["raises", "function", "exits", "object"],
)
def test_a_module_whose_state_cannot_be_kept_fails_its_trial(
    tmp_path: Path, is_alone: bool, extra: Callable[[], Any], sentence: str
) -> None:
    check_failed(play(tmp_path, lambda: setattr(Extra, "extra", staticmethod(extra)), is_alone=is_alone), sentence)


def test_such_a_module_is_refused_before_a_campaign_starts() -> None:
    Extra.extra = staticmethod(object)
    with pytest.raises(TaskOptionError, match=r"Hostile\.build gave a module that cannot be kept: .* got object"):
        rehearse(Hostile(), "a:Hostile")


class Name(str):
    """A name that no other process can read."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        raise RuntimeError("cannot be pickled")


@both
@pytest.mark.parametrize("name", [Name("validation_loss"), np.str_("validation_loss")], ids=["own", "numpy"])
def test_names_of_metrics_are_plain_text(tmp_path: Path, is_alone: bool, name: str) -> None:
    hook = {"measure": lambda: {name: torch.tensor(1.0)}}
    reports = play(tmp_path, lambda: Hostile.hooks.update(hook), is_alone=is_alone)
    assert {type(each) for report in reports for each in report.metrics} == {str}


def test_an_exception_that_exits_when_it_is_told_has_its_name() -> None:
    class LyingError(Exception):
        def __str__(self) -> str:
            raise SystemExit(1)

    assert told(LyingError()) == "LyingError"


def test_a_masked_value_is_no_number() -> None:
    with pytest.raises(UserCodeError, match="a masked value"):
        checked_metrics({"x": np.ma.masked}, source="Own.evaluate", promised=["x"])
