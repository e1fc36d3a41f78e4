"""A step in both engines, compared on a trial's own state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.trainers.test_population import LEARNING_RATES, members_of
from trainers import SoloTrial, TrialSetting
from trainers.fused_step_check import compared, verify_fusion
from trainers.tasks import Task

Settings = Callable[..., TrialSetting]


def test_a_member_is_verified_against_the_step_alone(setting: Settings) -> None:
    this = setting("language_model", optimizer="root", hyperparameters={"lr": 0.02})
    trial = SoloTrial(this)
    trial.advance(3)
    found = verify_fusion(this, trial.state())
    assert 0.0 <= found.deviation <= found.tolerance
    assert found.holds


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
        found = verify_fusion(this, trial.state())
        assert found.holds, (found.deviation, found.tolerance)


@pytest.mark.parametrize("optimizer", ["muon", "polargrad", "root", "adamw"])
def test_the_check_in_bf16_rejects_a_step_with_half_the_rate(task_named: Callable[[str], Task], optimizer: str) -> None:
    this = members_of(task_named("language_model"), optimizer, "bf16")[1]
    trial = SoloTrial(this)
    trial.advance(3)
    before = trial.state()
    trial.advance(4)
    after = trial.state()
    assert compared(this, before, after).holds
    for name, entry in after["model"].items():
        entry += 0.5 * (before["model"][name] - entry)
    assert not compared(this, before, after).holds
