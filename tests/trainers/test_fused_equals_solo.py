"""Each step of a trial among others is the step alone, and so is a whole run, up to rounding."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from spectune.trainers import Outcome, SoloTrial, TrialSetting
from spectune.trainers.engines.fused_step_check import RESPONSES, TOLERANCES, check_step
from spectune.trainers.engines.population import Population
from spectune.trainers.engines.solo import never
from spectune.trainers.tasks import Task
from tests.trainers.tasks.conftest import SMALL
from tests.trainers.test_population import LEARNING_RATES, admitted, deviation, members_of, targets

IS_THOROUGH = bool(os.environ.get("SPECTUNE_FAULTS"))
STATES = 50
STRUCTURES = [(task, optimizer) for task in sorted(SMALL) for optimizer in LEARNING_RATES]
LONG = [
    each
    for each in STRUCTURES
    if IS_THOROUGH or each[0] not in ("language_model gelu tied", "vision_transformer augmented")
]
SLOWER = {("matrix_regression", "polargrad"): 1e-3, ("matrix_regression", "sgd"): 0.1}
"""Shares of the usual rates: with those these trials diverge after a few steps, and nothing is compared any more."""

Settings = dict[int, TrialSetting]
State = dict[str, Any]


def settings_of(task: Task, optimizer: str, precision: str) -> Settings:
    """Three trials that differ in all that may differ, and stay finite."""
    share = SLOWER.get((task.name, optimizer), 1.0)
    return {
        trial: replace(each, hyperparameters={**each.hyperparameters, "lr": share * each.hyperparameters["lr"]})
        for trial, each in members_of(task, optimizer, precision).items()
    }


def moved(state: State) -> State:
    """Return a state whose weights are moved by 1e-15 of themselves."""
    draw = torch.Generator().manual_seed(0)

    def factor(entry: torch.Tensor) -> torch.Tensor:
        return 1 + 1e-15 * torch.randn(entry.shape, dtype=entry.dtype, generator=draw)

    return {**state, "model": {name: entry * factor(entry) for name, entry in state["model"].items()}}


def step_alone(alone: SoloTrial, state: State) -> State:
    """Take one step from a state in the solo engine."""
    alone.restore(state)
    assert alone.advance(state["step"] + 1) is Outcome.REACHED
    return alone.state()


def run_alone(setting: TrialSetting, *, is_moved: bool = False) -> State:
    """Train from the start, or from one that is moved by rounding, as far as the states reach."""
    alone = SoloTrial(setting)
    if is_moved:
        alone.restore(moved(alone.state()))
    assert alone.advance(STATES) is Outcome.REACHED
    return alone.state()


def one_in_turn(turn: int) -> list[int]:
    """Return the trials that are compared: all where there is time."""
    return [0, 1, 2] if IS_THOROUGH else [turn % 3]


def compare_a_step(cohort: Population, alone: dict[int, SoloTrial], trials: list[int], step: int) -> None:
    """Advance all by one step and compare these trials' with the same step alone."""
    before = {trial: cohort.state(trial) for trial in trials}
    assert set(cohort.advance(targets(cohort, step + 1)).values()) == {Outcome.REACHED}
    for trial, state in before.items():
        setting, after = alone[trial].setting, cohort.state(trial)
        found, bound = deviation(after, step_alone(alone[trial], state)), TOLERANCES[setting.precision]
        if found > bound and (setting.precision == "fp32" or setting.optimizer == "spectral_descent"):
            bound = check_step(setting, state, after).tolerance  # what rounding makes of the step alone
        assert found <= bound, (trial, step)


@pytest.mark.parametrize(("task", "optimizer"), LONG)
def test_each_of_fifty_steps_and_the_whole_run_are_those_alone(
    task_named: Callable[[str], Task], task: str, optimizer: str
) -> None:
    settings = settings_of(task_named(task), optimizer, "fp64")
    cohort, alone = admitted(settings), {trial: SoloTrial(each) for trial, each in settings.items()}
    for step in range(STATES):
        compare_a_step(cohort, alone, one_in_turn(step), step)
    for trial in one_in_turn(STRUCTURES.index((task, optimizer))):
        expected = run_alone(settings[trial])
        response = deviation(run_alone(settings[trial], is_moved=True), expected)
        assert response < 1e-6, "too chaotic for the next line to mean anything"
        assert deviation(cohort.state(trial), expected) < RESPONSES["fp64"] * max(response, 1e-14)


@pytest.mark.parametrize(("task", "optimizer"), STRUCTURES)
def test_a_step_in_fp32_is_the_step_alone(task_named: Callable[[str], Task], task: str, optimizer: str) -> None:
    settings = settings_of(task_named(task), optimizer, "fp32")
    cohort, alone = admitted(settings), {trial: SoloTrial(each) for trial, each in settings.items()}
    for step in (0, 1, 5, 8):
        cohort.advance(targets(cohort, step))
        compare_a_step(cohort, alone, [0, 1, 2], step)


class Careless(Population):
    """An engine whose steps are off by a hundred-billionth."""

    def advance(self, targets: Mapping[int, int], *, should_stop: Callable[[], bool] = never) -> dict[int, Outcome]:
        outcomes = super().advance(targets, should_stop=should_stop)
        for weight in self._joined().weights:
            weight.mul_(1 + 1e-11)
        return outcomes


@pytest.mark.parametrize("optimizer", ["muon", "spectral_descent"])
def test_the_comparison_rejects_a_step_that_is_off_by_a_hundred_billionth(
    task_named: Callable[[str], Task], optimizer: str
) -> None:
    settings = settings_of(task_named("matrix_completion"), optimizer, "fp64")
    cohort, alone = Careless(), {trial: SoloTrial(each) for trial, each in settings.items()}
    for trial, each in settings.items():
        cohort.admit(trial, each)
    with pytest.raises(AssertionError, match="assert"):
        compare_a_step(cohort, alone, [0], 0)
