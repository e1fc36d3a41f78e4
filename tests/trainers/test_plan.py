"""How many trials to train together."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from spectune.trainers import Schedule, TrialSetting
from spectune.trainers.engines.plan import Plan, make_plan
from spectune.trainers.tasks.task import Batch
from tests.trainers.test_solo import Bowl, Spoiled

Settings = Callable[..., TrialSetting]


@dataclass(frozen=True)
class Reading(Spoiled):
    """A task that reads a tensor's value in its loss, which no stack can."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        loss = super().loss(model, batch)
        return loss if loss.item() > 0 else -loss


class Huge(Spoiled):
    """A task whose model must not be built a second time."""

    built: ClassVar[int] = 0

    def build(self, generator: torch.Generator) -> Bowl:
        Huge.built += 1
        return super().build(generator)


def test_tiny_trials_are_planned_together_with_a_gain(setting: Settings) -> None:
    plan = make_plan(setting(optimizer="muon"), most=16)
    assert plan.num_members > 1
    assert plan.gain > 1.1
    assert set(plan.seconds) >= {1, 2}
    assert f"{plan.num_members} trials together" in str(plan)


def test_a_plan_never_exceeds_the_most_asked_for(setting: Settings) -> None:
    assert make_plan(setting(), most=3).num_members <= 3
    assert make_plan(setting(), most=1) == Plan(1, "no more are asked for")


def test_a_task_that_cannot_be_fused_is_planned_alone_with_the_sentence() -> None:
    plan = make_plan(TrialSetting(Reading(), "adamw", {"lr": 0.1}, Schedule(), 10, seed=0, data_seed=0), most=8)
    assert plan.num_members == 1
    assert ".item()" in plan.why
    assert "one trial at a time" in str(plan)


def test_a_rate_that_would_diverge_and_a_short_trial_do_not_disturb_the_plan(setting: Settings) -> None:
    plan = make_plan(setting(optimizer="muon", hyperparameters={"lr": 1e9}, steps=1), most=4)
    assert plan.num_members > 1


def test_memory_that_bears_one_more_only_bounds_the_plan(setting: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make_plan(setting(), most=2).member_bytes
    assert one is not None
    monkeypatch.setattr("spectune.trainers.engines.plan._free_bytes", lambda device: int(3.0 * one))
    plan = make_plan(setting(), most=64)
    assert max(plan.seconds) == 2
    assert "would not fit" in plan.why


def test_a_trial_with_long_steps_is_planned_alone_after_two_of_them(setting: Settings) -> None:
    ticks = count(step=0.25)
    alone = replace(setting(), task=Huge())
    plan = make_plan(alone, most=64, clock=lambda: float(next(ticks)))
    assert plan == Plan(1, "a step of one alone takes 0.25 s, more than 0.2 s: it fills its device")
    assert next(ticks) == 1.0  # after four looks at the clock, for two steps
    assert Huge.built == 1


def test_a_first_step_that_is_slow_does_not_count(setting: Settings) -> None:
    times = chain([0.0, 3.0], count(3.0, 0.001))
    assert make_plan(setting(), most=2, clock=lambda: float(next(times))).seconds != {}


def test_a_machine_that_slows_down_meanwhile_does_not_hide_the_gain(setting: Settings) -> None:
    times = _slowing_down(after_looks=8, factor=5.0)
    plan = make_plan(setting(optimizer="muon"), most=16, clock=lambda: next(times))
    assert plan.num_members > 1


def _slowing_down(*, after_looks: int, factor: float) -> Iterator[float]:
    """Tell the time of a machine that does everything more slowly from some look at its clock on."""
    now, seen = 0.0, time.perf_counter()
    for look in count():
        passed, seen = time.perf_counter() - seen, time.perf_counter()
        now += passed * (factor if look > after_looks else 1.0)
        yield now


def test_the_document_is_plain(setting: Settings) -> None:
    document = make_plan(setting(), most=2).document()
    assert json.loads(json.dumps(document)) == document


def test_a_plan_for_nobody_is_refused(setting: Settings) -> None:
    with pytest.raises(ValueError, match="at least one trial: got 0"):
        make_plan(setting(), most=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_of_one_more_is_measured_on_a_device(setting: Settings) -> None:
    plan = make_plan(replace(setting("language_model"), device="cuda"), most=4)
    assert plan.member_bytes is not None
    assert plan.member_bytes > 0
