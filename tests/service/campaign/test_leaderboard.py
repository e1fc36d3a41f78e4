"""Standings: what counts, and in which order."""

from __future__ import annotations

import math
from typing import Any

import pytest

from spectune.service.campaign.analysis.leaderboard import leaderboard
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.records import TrialRecord


def _trial(number: int, state: TrialState, objective: float | None, **changes: Any) -> TrialRecord:
    values = {"arm": 0, "point": number, "seed_index": 0, **changes}
    return TrialRecord(
        number=number,
        config={"lr": number},
        ask={},
        state=state,
        reason="",
        message="",
        since=0,
        created_at=0,
        attempt=1,
        num_losses=0,
        last_step=10,
        objective=objective,
        device_seconds=0.0,
        **values,
    )


def test_only_final_values_of_completed_trials_are_ranked() -> None:
    trials = [
        _trial(0, TrialState.STOPPED, 0.0),
        _trial(1, TrialState.COMPLETED, 0.5),
        _trial(2, TrialState.RUNNING, 0.1),
        _trial(3, TrialState.COMPLETED, 0.3),
        _trial(4, TrialState.DIVERGED, -math.inf),
        _trial(5, TrialState.COMPLETED, math.nan),
    ]
    (standing,) = leaderboard(reversed(trials), num_arms=1, mode="minimize")
    assert [(each.point, each.value, each.spread) for each in standing.ranked] == [(3, 0.3, None), (1, 0.5, None)]
    assert standing.best is not None
    assert standing.best.config == {"lr": 3}
    assert standing.num_trials[TrialState.COMPLETED] == 3
    assert standing.num_trials[TrialState.PENDING] == 0
    assert sum(standing.num_trials.values()) == 6


def test_larger_is_better_where_the_objective_says_so() -> None:
    trials = [_trial(number, TrialState.COMPLETED, value) for number, value in enumerate([0.1, 0.9, 0.5])]
    (standing,) = leaderboard(trials, num_arms=1, mode="maximize")
    assert [each.point for each in standing.ranked] == [1, 2, 0]


@pytest.mark.parametrize("mode", ["minimize", "maximize"])
def test_equal_points_are_ranked_by_trial_number(mode: Any) -> None:
    trials = [_trial(number, TrialState.COMPLETED, 0.5) for number in (7, 3, 5)]
    (standing,) = leaderboard(trials, num_arms=1, mode=mode)
    assert [each.trials for each in standing.ranked] == [(3,), (5,), (7,)]


def test_a_point_with_several_seeds_has_a_mean_and_a_spread_once_all_have_ended() -> None:
    trials = [
        _trial(0, TrialState.COMPLETED, 0.2, point=0, seed_index=0),
        _trial(1, TrialState.COMPLETED, 0.4, point=0, seed_index=1),
        _trial(2, TrialState.COMPLETED, 0.1, point=1, seed_index=0),
        _trial(3, TrialState.RUNNING, 0.1, point=1, seed_index=1),
    ]
    (standing,) = leaderboard(trials, num_arms=1, mode="minimize")
    (best,) = standing.ranked
    assert (best.point, best.trials) == (0, (0, 1))
    assert best.value == pytest.approx(0.3)
    assert best.spread == pytest.approx(0.2 / math.sqrt(2))


def test_each_arm_stands_alone_and_one_without_trials_is_empty() -> None:
    trials = [_trial(0, TrialState.COMPLETED, 0.2), _trial(1, TrialState.COMPLETED, 0.1, arm=2, point=0)]
    standings = leaderboard(trials, num_arms=3, mode="minimize")
    assert [standing.best.trials if standing.best else None for standing in standings] == [(0,), None, (1,)]
    assert [standing.arm for standing in standings] == [0, 1, 2]
