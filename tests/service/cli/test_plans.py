"""What the command says of trials that train together."""

from __future__ import annotations

from typing import Any

from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.records import Event, Observation
from spectune.service.cli.plans import achieved_line, fusion_lines, plan_line
from tests.fakes.slots import specification
from tests.service.cli.test_outcome import trial

SPECIFICATION = specification()
TRIALS = [trial(number, number % 2, number, TrialState.COMPLETED, 1.0) for number in range(6)]


def planned(members: int, **seconds: float) -> Event:
    body = {"arm": 0, "members": members, "why": "memory bears no more", "predicted_gain": 4.0}
    return Event(1, 0, "planned", None, body | {"seconds_per_member_step": {"1": 0.02, **seconds}})


def observation(number: int, **metrics: Any) -> Observation:
    return Observation(number, number, 10, 1, 0, {"loss": 1.0, "timing_valid": 0.0} | metrics)


def test_a_plan_names_the_arm_how_many_how_fast_and_why() -> None:
    line = plan_line(SPECIFICATION, planned(8))
    assert line == f"{SPECIFICATION.arms[0].name} trains 8 trials at a time, 4.0 times as fast (memory bears no more)"


def test_what_came_of_a_plan_is_the_time_of_the_steps_of_its_arm_that_were_taken_together() -> None:
    observations = [
        observation(0, step_time_seconds=0.01),
        observation(2, step_time_seconds=0.008),
        observation(4, step_time_seconds=0.2),
        observation(4, step_time_seconds=0.0001, timing_valid=1.0),  # alone
        observation(1, step_time_seconds=0.0001),  # of the other arm
        observation(2),  # nothing measured
    ]
    line = achieved_line(SPECIFICATION, planned(8), TRIALS, observations)
    name = SPECIFICATION.arms[0].name
    assert line == f"{name}: 8 trials at a time were 2.0 times as fast as one alone had been (predicted: 4.0)"


def test_nothing_is_said_of_trials_that_trained_alone_or_were_not_measured() -> None:
    assert achieved_line(SPECIFICATION, planned(1), TRIALS, [observation(0, step_time_seconds=0.01)]) is None
    assert achieved_line(SPECIFICATION, planned(8), TRIALS, [observation(0)]) is None


def checked(arm: int, deviation: Any, *, holds: bool = True) -> Event:
    body = {"arm": arm, "step": 3, "deviation": deviation, "tolerance": 1e-5, "holds": holds}
    return Event(1, 0, "fusion_checked", 0, body)


def test_checks_of_fused_steps_are_told_by_arm_with_the_largest_deviation() -> None:
    first, second = (arm.name for arm in SPECIFICATION.arms)
    lines = fusion_lines(SPECIFICATION, [checked(0, 1e-7), checked(0, 3e-7), checked(1, "NaN", holds=False)])
    assert lines[0] == f"{first}: 2 fused steps checked, the furthest from the step alone by 3e-07 (at most 1e-05)"
    assert lines[1].startswith("[red]warning[/] ")
    assert f"{second}: 1 fused steps checked, the furthest from the step alone by nan, more than 1e-05" in lines[1]
    assert fusion_lines(SPECIFICATION, []) == []
