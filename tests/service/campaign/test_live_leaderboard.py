"""Standings that are kept up to date are those that are ranked anew."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from spectune.service.campaign.analysis.leaderboard import leaderboard
from spectune.service.campaign.analysis.live_leaderboard import LiveLeaderboard
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.records import Phase, TrialOutcome

NUM_ARMS = 2
VALUES = [0.0, 1.0, 2.0, 2.0, -1.0, math.nan, math.inf, -math.inf, None]


def trial(number: int, chance: random.Random) -> TrialOutcome:
    """Return a trial of one of few points, so that many have several seeds and equal values."""
    return TrialOutcome(
        number=number,
        arm=number % NUM_ARMS,
        point=number // NUM_ARMS % 5,
        phase=list(Phase)[number % 3],
        config={"lr": number // NUM_ARMS % 5},
        state=chance.choice([*TrialState, *[TrialState.COMPLETED] * 12]),
        objective=chance.choice(VALUES),
    )


@pytest.mark.parametrize("mode", ["minimize", "maximize"])
@pytest.mark.parametrize("seed", range(5))
def test_after_any_changes_the_standings_are_those_of_a_ranking_from_the_beginning(mode: Any, seed: int) -> None:
    chance = random.Random(seed)
    board = LiveLeaderboard(num_arms=NUM_ARMS, mode=mode)
    trials: dict[int, TrialOutcome] = {}
    num_ranked = 0
    for _ in range(60):
        changed = [trial(number, chance) for number in chance.sample(range(60), chance.randrange(8))]
        trials |= {each.number: each for each in changed}
        board.update([*changed, *chance.sample(list(trials.values()), min(3, len(trials)))])
        standings = board.standings()
        assert standings == leaderboard(trials.values(), num_arms=NUM_ARMS, mode=mode)
        assert board.num_trials == len(trials)
        num_ranked += sum(len(each.ranked) + len(each.finals) for each in standings)
    assert num_ranked > 100


def test_what_is_not_told_to_it_is_missed() -> None:
    chance = random.Random(0)
    trials = [trial(number, chance) for number in range(40)]
    board = LiveLeaderboard(num_arms=NUM_ARMS, mode="minimize")
    board.update(trials[:-1])
    assert board.standings() != leaderboard(trials, num_arms=NUM_ARMS, mode="minimize")
