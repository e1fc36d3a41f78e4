"""A step in both engines, compared on a trial's own state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from spectune.trainers import SoloTrial, TrialSetting
from spectune.trainers.engines.fused_step_check import FusionCheck, check_step
from spectune.trainers.engines.population import Population
from spectune.trainers.tasks import Task
from tests.trainers.test_population import LEARNING_RATES, members_of

Settings = Callable[..., TrialSetting]


def checked(setting: TrialSetting, trial: SoloTrial) -> FusionCheck:
    """Take the next step of a trial beside two others, and check it."""
    population = Population()
    population.admit(1, setting, trial.state())
    for other in (0, 2):
        population.admit(other, replace(setting, seed=50 + other))
    population.advance({each: population.step(each) + 1 for each in population.trials})
    return check_step(setting, trial.state(), population.state(1))


def test_a_step_among_others_is_the_step_alone(setting: Settings) -> None:
    this = setting("language_model", optimizer="root", hyperparameters={"lr": 0.02})
    trial = SoloTrial(this)
    trial.advance(3)
    found = checked(this, trial)
    assert (found.step, found.holds) == (4, True)
    assert 0.0 <= found.deviation <= found.tolerance
    assert not check_step(this, trial.state(), trial.state()).holds


@pytest.mark.parametrize("optimizer", LEARNING_RATES)
@pytest.mark.parametrize("task", ["language_model", "vision_transformer"])
def test_a_step_in_bf16_is_the_step_alone_up_to_what_bf16_cannot_see(
    task_named: Callable[[str], Task], task: str, optimizer: str
) -> None:
    """A fixed tolerance of 1e-2 refused AdamW's first step on a language model, which differs by 4e-2."""
    this = members_of(task_named(task), optimizer, "bf16")[1]
    trial = SoloTrial(this)
    for step in (0, 3):
        trial.advance(step)
        found = checked(this, trial)
        assert found.holds, (found.deviation, found.tolerance)


def test_an_exact_polar_factor_may_amplify_rounding(task_named: Callable[[str], Task]) -> None:
    """On augmented digits a correct step deviated by 3e-12 in fp64: the gradient has singular values near zero."""
    this = members_of(task_named("vision_transformer augmented"), "spectral_descent", "fp64")[2]
    trial = SoloTrial(this)
    for step in (0, 1, 5, 8):
        trial.advance(step)
        found = checked(this, trial)
        assert found.holds, (step, found.deviation, found.tolerance)
        assert found.tolerance < 1e-6


@pytest.mark.parametrize("optimizer", ["muon", "polargrad", "root", "adamw"])
@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
def test_a_step_with_half_the_rate_is_rejected(
    task_named: Callable[[str], Task], optimizer: str, precision: str
) -> None:
    this = members_of(task_named("language_model"), optimizer, precision)[1]
    trial = SoloTrial(this)
    trial.advance(3)
    before = trial.state()
    trial.advance(4)
    after = trial.state()
    assert check_step(this, before, after).holds
    for name, entry in after["model"].items():
        entry += 0.5 * (before["model"][name] - entry)
    assert not check_step(this, before, after).holds
