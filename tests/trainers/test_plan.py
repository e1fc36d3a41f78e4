"""How many trials to train together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.test_solo import Spoiled
from trainers import Schedule, TrialSetting
from trainers.plan import Plan, make_plan
from trainers.tasks.task import Batch

Settings = Callable[..., TrialSetting]


@dataclass(frozen=True)
class Reading(Spoiled):
    """A task that reads a tensor's value in its loss, which no stack can."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        loss = super().loss(model, batch)
        return loss if loss.item() > 0 else -loss


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


class Clock:
    """Time that passes with every step of a task that knows the clock."""

    now = 0.0
    num_built = 0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


@dataclass(frozen=True)
class Long(Spoiled):
    """A task whose first step takes `first_seconds` and every other `seconds`."""

    first_seconds: float = 0.0
    seconds: float = 0.0

    def build(self, generator: torch.Generator) -> nn.Module:
        CLOCK.num_built += 1
        return super().build(generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        CLOCK.now += self.seconds if CLOCK.now else self.first_seconds
        return super().loss(model, batch)


def plan_of(task: Long) -> Plan:
    CLOCK.now, CLOCK.num_built = 0.0, 0
    setting = TrialSetting(task, "adamw", {"lr": 0.1}, Schedule(), 10, seed=0, data_seed=0)
    return make_plan(setting, most=64, clock=CLOCK)


def test_a_trial_with_long_steps_is_planned_alone_after_two_of_them() -> None:
    """Twenty steps of a model of 124 million parameters, and as many of two of them, took minutes on a CPU."""
    plan = plan_of(Long(first_seconds=3.0, seconds=0.5))
    assert (CLOCK.now, CLOCK.num_built) == (3.5, 1)
    assert (plan.num_members, plan.seconds) == (1, {1: 0.5})
    assert plan.why == "a step alone takes 0.5 s, so that one fills the device"


def test_a_first_step_that_is_long_alone_decides_nothing() -> None:
    plan = plan_of(Long(first_seconds=3.0, seconds=0.01))
    assert 2 in plan.seconds
    assert CLOCK.num_built > 1


def test_a_rate_that_would_diverge_and_a_short_trial_do_not_disturb_the_plan(setting: Settings) -> None:
    plan = make_plan(setting(optimizer="muon", hyperparameters={"lr": 1e9}, steps=1), most=4)
    assert plan.num_members > 1


def test_memory_that_bears_one_more_only_bounds_the_plan(setting: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make_plan(setting(), most=2).member_bytes
    assert one is not None
    monkeypatch.setattr("trainers.plan._free_bytes", lambda device: int(3.0 * one))
    plan = make_plan(setting(), most=64)
    assert max(plan.seconds) == 2
    assert "would not fit" in plan.why


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
