"""Lanes see each other nowhere, and one that is lost leaves the others alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from spectune.optimizers.polar.solvers import SOLVERS
from spectune.trainers import Outcome, Schedule, SoloTrial, TrialSetting
from spectune.trainers.tasks import Task
from tests.trainers.tasks.conftest import SMALL
from tests.trainers.test_fused_equals_solo import STRUCTURES
from tests.trainers.test_population import LEARNING_RATES, admitted, members_of, targets, weights
from tests.trainers.test_solo import Spoiled

Settings = Callable[..., TrialSetting]


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_lane_of_nan_leaves_the_other_lanes_their_bits_in_every_solver(setting: Settings, solver: str) -> None:
    same = setting(optimizer="polargrad", hyperparameters={"lr": 0.1, "solver": solver})
    cohorts = [admitted({0: same, 1: same, 2: same}) for _ in range(2)]
    state = cohorts[1].state(1)
    next(iter(state["model"].values()))[0, 0] = math.nan
    cohorts[1].evict([1, 2])
    cohorts[1].admit(1, same, state)
    cohorts[1].admit(2, same)
    for cohort in cohorts:
        cohort.advance({0: 1, 1: 1, 2: 1})
    for trial in (0, 2):
        assert torch.equal(weights(cohorts[0].state(trial)), weights(cohorts[1].state(trial)))


@pytest.mark.parametrize("content", ["another's", "tiny", "huge"])
@pytest.mark.parametrize("optimizer", LEARNING_RATES)
def test_what_a_lane_holds_changes_no_bit_of_the_others_in_every_rule(
    setting: Settings, optimizer: str, content: str
) -> None:
    same = setting(optimizer=optimizer, hyperparameters={"lr": LEARNING_RATES[optimizer]})
    cohorts = [admitted({0: same, 1: same, 2: same}) for _ in range(2)]
    for cohort in cohorts:
        cohort.advance(targets(cohort, 2))
    state = cohorts[1].state(1)
    factor = {"another's": -1.5, "tiny": 1e-20, "huge": 1e3}[content]
    entries = [
        *state["model"].values(),
        *(each["momentum_buffer"] for each in state["optimizer"]["state"].values() if "momentum_buffer" in each),
    ]
    for entry in entries:
        entry *= factor
    third = cohorts[1].state(2)
    cohorts[1].evict([1, 2])
    cohorts[1].admit(1, same, state)
    cohorts[1].admit(2, same, third)
    for cohort in cohorts:
        cohort.advance({0: 3, 1: 3, 2: 3})
    assert not torch.equal(weights(cohorts[0].state(1)), weights(cohorts[1].state(1)))
    for trial in (0, 2):
        assert torch.equal(weights(cohorts[0].state(trial)), weights(cohorts[1].state(trial)))


def test_a_member_that_becomes_infinite_leaves_at_its_own_step_and_touches_nobody() -> None:
    spoiled = TrialSetting(Spoiled(), "adamw", {"lr": 0.01}, Schedule(), steps=64, seed=0, data_seed=0)
    healthy, ill = admitted({0: spoiled, 1: spoiled}), admitted({0: spoiled, 1: spoiled})
    state = ill.state(1)
    state["model"]["weight"][0, 0] = math.nan
    ill.evict([1])
    ill.admit(1, spoiled, state)
    assert ill.advance({0: 20, 1: 20}) == {0: Outcome.REACHED, 1: Outcome.DIVERGED}
    healthy.advance({0: 20, 1: 20})
    assert ill.step(1) == 1
    assert "nan at step 1" in ill.reason(1)
    assert torch.equal(weights(ill.state(0)), weights(healthy.state(0)))


@pytest.mark.parametrize(("task", "optimizer"), STRUCTURES)
def test_no_task_lets_lanes_see_each_other(task_named: Callable[[str], Task], task: str, optimizer: str) -> None:
    settings = members_of(task_named(task), optimizer, "fp32")
    other = {**settings[1].hyperparameters, "lr": 3 * settings[1].hyperparameters["lr"]}
    cohorts = admitted(settings), admitted({**settings, 1: replace(settings[1], seed=77, hyperparameters=other)})
    for cohort in cohorts:
        cohort.advance(targets(cohort, 3))
    assert not torch.equal(*(weights(cohort.state(1)) for cohort in cohorts))
    for trial in (0, 2):
        assert torch.equal(*(weights(cohort.state(trial)) for cohort in cohorts))


@pytest.mark.parametrize("task", sorted(SMALL))
def test_a_rate_of_a_million_under_muon_ends_its_member_where_it_ends_alone(
    task_named: Callable[[str], Task], task: str
) -> None:
    tame = TrialSetting(
        task_named(task), "muon", {"lr": 1e-4, "compute_dtype": "auto"}, Schedule(), steps=16, seed=0, data_seed=0
    )
    wild = replace(tame, hyperparameters={**tame.hyperparameters, "lr": 1e6})
    cohort, alone = admitted({0: wild, 1: tame}), SoloTrial(wild)
    assert cohort.advance({0: 16, 1: 16}) == {0: Outcome.DIVERGED, 1: Outcome.REACHED}
    alone.advance(16)
    assert (cohort.step(0), cohort.reason(0)) == (alone.step, alone.reason)


def test_growth_without_bound_ends_a_member_at_the_step_it_ends_alone() -> None:
    task = Spoiled(runs_away=True)
    wild, tame = (
        TrialSetting(task, "muon", {"lr": lr, "weight_decay": 0.0}, Schedule(), steps=64, seed=0, data_seed=0)
        for lr in (1e6, 1e-6)
    )
    cohort, alone = admitted({0: wild, 1: tame}), SoloTrial(wild)
    assert cohort.advance({0: 64, 1: 64}) == {0: Outcome.DIVERGED, 1: Outcome.REACHED}
    alone.advance(64)
    assert (cohort.step(0), cohort.reason(0)) == (alone.step, alone.reason)
