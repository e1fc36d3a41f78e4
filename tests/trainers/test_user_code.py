"""What comes from a user's code is checked at each crossing, in both engines, and fails that code alone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spectune.trainers.schedules import Schedule
from spectune.trainers.setting import TrialSetting
from spectune.trainers.tasks.task import TaskOptions
from spectune.trainers.user_code import (
    OperatorInterrupt,
    UserCodeError,
    checked_metrics,
    failure_text,
    running_user_code,
    told,
)
from spectune.trainers.worker.messages import Assignment, MemberReport, SlotCommand, TrialEnding
from spectune.trainers.worker.slot import Slot, SlotOptions
from tests.fakes.command_source import ScriptedCommands

GOOD = [
    (3, 3.0),
    (True, 1.0),
    (np.float32(0.5), 0.5),
    (np.int64(2), 2.0),
    (np.bool_(True), 1.0),
    (np.array(4), 4.0),
    (torch.tensor(7), 7.0),
    (torch.tensor(0.25, dtype=torch.bfloat16), 0.25),
    (Fraction(1, 4), 0.25),
    (Decimal("1.5"), 1.5),
    (float("inf"), float("inf")),
    (Decimal("-Infinity"), float("-inf")),
]


class Liar(float):
    def __float__(self) -> float:
        return "no number"  # type: ignore[return-value]


class Raiser(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


BAD = [
    (None, "gave None for validation_loss"),
    ("0.5", "gave '0.5' for validation_loss"),
    (1j, "gave 1j for validation_loss"),
    (torch.tensor(1j), "gave a tensor of shape () for validation_loss"),
    (torch.ones(2), "gave a tensor of shape (2,) for validation_loss"),
    (torch.ones(1), "gave a tensor of shape (1,) for validation_loss"),
    (np.zeros((2, 3)), "gave a NumPy array of shape (2, 3) for validation_loss"),
    (10**400, "gave a number too large for a float for validation_loss"),
    (Decimal("1e400"), "for validation_loss"),
    ([1.0], "gave a value of type list for validation_loss"),
]


@pytest.mark.parametrize(("value", "number"), GOOD)
def test_any_real_number_becomes_a_float(value: object, number: float) -> None:
    (found,) = checked_metrics({"validation_loss": value}, source="Own.evaluate", promised=["validation_loss"]).values()
    assert (type(found), found) == (float, number)


@pytest.mark.parametrize(("value", "words"), BAD)
def test_anything_else_is_named_with_metric_and_step(value: object, words: str) -> None:
    with pytest.raises(UserCodeError) as caught:
        checked_metrics(
            {"validation_loss": value}, source="Own.evaluate", promised=["validation_loss"], when=" at step 3"
        )
    assert str(caught.value).startswith("Own.evaluate gave ")
    assert words in str(caught.value)
    assert str(caught.value).endswith(" at step 3")


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (None, "gave None instead of numbers by name"),
        pytest.param(10**6000, "gave a value of type int instead of numbers by name", id="huge"),
        ([("validation_loss", 1.0)], "gave a value of type list instead of numbers by name"),
        ({}, r"gives \[\], while metrics promises \['validation_loss'\]"),
        ({"validation_loss": 1.0, "more": 2.0}, "gives .*more"),
        ({3: 1.0}, "gives .*'3'"),
    ],
)
def test_what_is_no_mapping_of_the_promised_names_is_refused(metrics: object, words: str) -> None:
    with pytest.raises(UserCodeError, match=words):
        checked_metrics(metrics, source="Own.evaluate", promised=["validation_loss"])


def test_a_value_that_cannot_be_printed_is_named_by_type() -> None:
    class Unprintable(str):
        __slots__ = ()

        def __repr__(self) -> str:
            raise RuntimeError("no characters")

    with pytest.raises(UserCodeError, match=r"gave <Unprintable instance .* for x"):
        checked_metrics({"x": Unprintable("abc")}, source="Own.evaluate", promised=["x"])


def test_exceptions_that_cannot_even_be_printed_are_told_by_type() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert told(MuteError()) == "MuteError"
    assert told(SystemExit(2)) == "SystemExit(2)"
    assert told(ValueError("a\nb")) == "ValueError: a"
    assert "MuteError" in failure_text(MuteError())
    assert failure_text(UserCodeError("a sentence")) == "a sentence"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt, also if the tests run in the background of a shell, which ignores it there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_is_told_apart_from_what_the_code_raises() -> None:
    with pytest.raises(OperatorInterrupt), running_user_code():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt) as caught, running_user_code():
        raise KeyboardInterrupt
    assert not isinstance(caught.value, OperatorInterrupt)


# In a slot, where trials train


@dataclass(frozen=True)
class Weird(TaskOptions):
    """A task that misbehaves at a step, in a way that the test sets."""

    name: ClassVar[str] = "weird"
    misdeeds: ClassVar[dict[str, Callable[[], Any]]] = {}
    from_step: ClassVar[int] = 3

    def build(self, generator: torch.Generator) -> nn.Module:
        self._misbehave("build")
        model = nn.Linear(3, 2)
        model.weight.data.normal_(generator=generator)
        return model

    def batch(self, step: int, seed: int) -> tuple[Tensor, ...]:
        batch = (torch.full((1, 3), 1.0 + seed),)
        return self._misbehave("batch", batch) if step >= self.from_step else batch

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        loss: Tensor = model(batch[0]).square().mean()
        return self._misbehave("loss", loss)

    def evaluate(self, model: nn.Module, seed: int) -> dict[str, float]:
        return self._misbehave("evaluate", {"validation_loss": float(model.weight.square().sum())})

    def _misbehave(self, method: str, otherwise: Any = None) -> Any:
        return self.misdeeds[method]() if method in self.misdeeds else otherwise


@pytest.fixture(autouse=True)
def good_again() -> Iterator[None]:
    yield
    Weird.misdeeds.clear()


def raising(error: BaseException) -> Callable[[], Any]:
    def misdeed() -> Any:
        raise error

    return misdeed


def play(folder: Path, misdeeds: Mapping[str, Callable[[], Any]], *, is_alone: bool) -> list[MemberReport]:
    """Train two trials, which misbehave after the first report."""
    setting = TrialSetting(Weird(), "adamw", {"lr": 0.01}, Schedule(), 9, seed=0, data_seed=0)
    trials = [Assignment(number, replace(setting, seed=number), (3, 6, 9), is_alone=is_alone) for number in range(2)]
    commands = ScriptedCommands([SlotCommand(admit=tuple(trials)), SlotCommand(), SlotCommand(finish=True)])
    slot = Slot("s", commands, SlotOptions(str(folder), "attempt-1", 0.0, cpus=1))
    first, reports = slot.step(), []
    assert first is not None
    assert [each.ending for each in first.members] == [TrialEnding.REACHED] * 2, first.members[0].message
    Weird.misdeeds.update(misdeeds)
    second = slot.step()
    assert second is not None
    reports = second.members
    assert slot.step() is None
    return reports


@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "Weird.evaluate gave None for validation_loss at step 6"),
        ("x", "Weird.evaluate gave 'x' for validation_loss at step 6"),
        (torch.ones(2, 2), "Weird.evaluate gave a tensor of shape (2, 2) for validation_loss at step 6"),
    ],
)
def test_a_value_that_is_no_number_fails_its_trial(
    tmp_path: Path, is_alone: bool, value: object, sentence: str
) -> None:
    reports = play(tmp_path, {"evaluate": lambda: {"validation_loss": value}}, is_alone=is_alone)
    assert [(each.ending, each.message) for each in reports] == [(TrialEnding.FAILED, sentence)] * 2


@pytest.mark.parametrize("is_alone", [True, False])
def test_numbers_of_other_types_are_reported_as_floats(tmp_path: Path, is_alone: bool) -> None:
    reports = play(tmp_path, {"evaluate": lambda: {"validation_loss": np.float32(0.5)}}, is_alone=is_alone)
    assert [(each.ending, each.metrics["validation_loss"]) for each in reports] == [(TrialEnding.REACHED, 0.5)] * 2
    assert all(type(value) is float for each in reports for value in each.metrics.values())


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_mapping_that_raises_fails_its_trial(tmp_path: Path, is_alone: bool) -> None:
    reports = play(tmp_path, {"evaluate": lambda: Raiser(validation_loss=1.0)}, is_alone=is_alone)
    assert [each.ending for each in reports] == [TrialEnding.FAILED] * 2
    assert all("RuntimeError: no items" in each.message for each in reports)


@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.parametrize("method", ["batch", "evaluate"])
@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()],
    ids=lambda each: repr(each),
)
def test_an_exit_that_code_raises_is_its_own_failure(
    tmp_path: Path, is_alone: bool, method: str, error: BaseException
) -> None:
    reports = play(tmp_path, {method: raising(error)}, is_alone=is_alone)
    ending = (
        TrialEnding.LOST if method == "batch" else TrialEnding.FAILED
    )  # which member of a cohort is to blame is not known
    assert [each.ending for each in reports] == [ending] * 2
    assert all(type(error).__name__ in each.message for each in reports)
    assert all("in misdeed\n    raise error\n" in each.message for each in reports)


@pytest.mark.parametrize(
    ("misdeeds", "sentence"),
    [
        (
            {"batch": lambda: torch.ones(3)},
            "Weird.batch must give a tuple of tensors, gave a tensor of shape (3,) at step 3",
        ),
        ({"batch": lambda: (1.0,)}, "Weird.batch must give a tuple of tensors, gave a value of type tuple at step 3"),
        ({"loss": lambda: 0.5}, "Weird.loss must give a scalar, gave 0.5 at step 3"),
        ({"loss": lambda: torch.ones(2)}, "Weird.loss must give a scalar, gave a tensor of shape (2,) at step 3"),
    ],
)
def test_a_batch_or_loss_of_another_kind_is_named(tmp_path: Path, misdeeds: Any, sentence: str) -> None:
    reports = play(tmp_path, misdeeds, is_alone=True)
    assert {each.message for each in reports} == {sentence}


def test_a_build_that_exits_fails_the_trial_at_its_start(tmp_path: Path) -> None:
    Weird.misdeeds["build"] = raising(SystemExit("no model"))
    setting = TrialSetting(Weird(), "adamw", {"lr": 0.01}, Schedule(), 9, seed=0, data_seed=0)
    commands = ScriptedCommands([SlotCommand(admit=(Assignment(0, setting, (9,), is_alone=True),))])
    report = Slot("s", commands, SlotOptions(str(tmp_path), "attempt-1", 0.0, cpus=1)).step()
    assert report is not None
    assert [(each.ending, each.step) for each in report.members] == [(TrialEnding.FAILED, 0)]
    assert "SystemExit: no model" in report.members[0].message
