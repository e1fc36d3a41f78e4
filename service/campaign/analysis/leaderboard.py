"""Standings within each arm, from the trials' summaries alone.

The search ranks points; the finals tell how good the best ones are, with seeds that played no part in choosing them.
Only final values of COMPLETED trials are compared. A point is ranked once all its trials have ended and it counts as
COMPLETED (`outcomes.py`), by the mean over its completed seeds; equal points by their lowest trial number.
`LiveLeaderboard` (live_leaderboard.py) says the same of trials that go on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import stdev
from typing import Any, TypeAlias

from spectune.service.campaign.analysis.arm_comparison import interval_half_width
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.outcomes import Mode, SeedHistory, final_values, mean, point_outcome
from spectune.service.campaign.model.records import Phase, TrialOutcome, TrialRecord

Ranked: TypeAlias = TrialRecord | TrialOutcome


@dataclass(frozen=True)
class PointStanding:
    """A point that has completed.

    Attributes:
        point: Its index within the arm.
        config: Its hyperparameters.
        trials: The numbers of its completed trials.
        value: The mean of their final objectives.
        spread: Their sample standard deviation; None for a single seed.
    """

    point: int
    config: Mapping[str, Any]
    trials: tuple[int, ...]
    value: float
    spread: float | None

    @property
    def half_width(self) -> float | None:
        """Half the width of the 95 % interval of the mean, by Student's t; None for a single seed."""
        return None if self.spread is None else interval_half_width(self.spread, num_seeds=len(self.trials))


@dataclass(frozen=True)
class ArmStanding:
    """How an arm stands.

    Attributes:
        arm: Its index.
        ranked: The points that completed in the search, the best first.
        finals: The points that completed in the finals, the best first.
        num_trials: How many of its trials are in each state; every state is there.
    """

    arm: int
    ranked: tuple[PointStanding, ...]
    finals: tuple[PointStanding, ...]
    num_trials: Mapping[TrialState, int]

    @property
    def best(self) -> PointStanding | None:
        """The best point of the search; None before any has completed."""
        return self.ranked[0] if self.ranked else None

    @property
    def final(self) -> PointStanding | None:
        """The best point of the finals; None before any has completed."""
        return self.finals[0] if self.finals else None


def leaderboard(trials: Iterable[Ranked], *, num_arms: int, mode: Mode) -> tuple[ArmStanding, ...]:
    """Rank the points of each arm.

    Args:
        trials: The campaign's trials, in any order.
        num_arms: How many arms it has; one without trials has an empty standing.
        mode: Whether small or large values are better.
    """
    ordered = sorted(trials, key=lambda trial: (trial.arm, trial.point, trial.number))
    of_arm = {arm: list(group) for arm, group in groupby(ordered, key=lambda trial: trial.arm)}
    return tuple(_arm_standing(arm, of_arm.get(arm, []), mode) for arm in range(num_arms))


def _arm_standing(arm: int, trials: Sequence[Ranked], mode: Mode) -> ArmStanding:
    counts = Counter(trial.state for trial in trials)
    return ArmStanding(
        arm=arm,
        ranked=_ranked([trial for trial in trials if trial.phase is Phase.SEARCH], mode),
        finals=_ranked([trial for trial in trials if trial.phase is Phase.FINAL], mode),
        num_trials={state: counts[state] for state in TrialState},
    )


def _ranked(trials: Sequence[Ranked], mode: Mode) -> tuple[PointStanding, ...]:
    standings = [point_standing(list(group)) for _, group in groupby(trials, key=lambda trial: trial.point)]
    return tuple(sorted((each for each in standings if each), key=place_of(mode)))


def place_of(mode: Mode) -> Callable[[PointStanding], tuple[float, tuple[int, ...]]]:
    """Return the key that puts the best point first; no two points have the same."""
    sign = 1.0 if mode == "minimize" else -1.0
    return lambda standing: (sign * standing.value, standing.trials)


def point_standing(trials: Sequence[Ranked]) -> PointStanding | None:
    """Judge a point by its trials in the order of their numbers; None where it has no place among the others."""
    seeds = [
        SeedHistory(outcome=trial.state if trial.state.is_terminal else None, value=trial.objective) for trial in trials
    ]
    if point_outcome(seeds) is not TrialState.COMPLETED:
        return None
    values = final_values(seeds)
    return PointStanding(
        point=trials[0].point,
        config=trials[0].config,
        trials=tuple(trial.number for trial in trials if trial.state is TrialState.COMPLETED),
        value=mean(values),
        spread=_spread(values) if len(values) > 1 else None,
    )


def _spread(values: Sequence[float]) -> float:
    """Return the sample standard deviation; infinite if no number is large enough."""
    try:
        return stdev(values)
    except OverflowError:
        return math.inf
