"""Standings of trials that go on: a change costs the points that it touches, and not a ranking of all.

It says what `leaderboard` says of the same trials; that is its test.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable

from spectune.service.campaign.analysis.leaderboard import ArmStanding, PointStanding, Ranked, place_of, point_standing
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.outcomes import Mode
from spectune.service.campaign.model.records import Phase


class LiveLeaderboard:
    """The points of each arm, ranked.

    Args:
        num_arms: How many arms the campaign has.
        mode: Whether small or large values are better.
    """

    def __init__(self, *, num_arms: int, mode: Mode) -> None:
        self._arms = [_LiveArm(arm, mode) for arm in range(num_arms)]

    @property
    def num_trials(self) -> int:
        """How many trials it knows."""
        return sum(arm.num_trials for arm in self._arms)

    def update(self, trials: Iterable[Ranked]) -> None:
        """Take in trials that are new or have changed, in any order; what has not may be among them."""
        of_arm: defaultdict[int, list[Ranked]] = defaultdict(list)
        for trial in trials:
            of_arm[trial.arm].append(trial)
        for arm, changed in of_arm.items():
            self._arms[arm].update(changed)

    def standings(self) -> tuple[ArmStanding, ...]:
        """Return the standings as they are now."""
        return tuple(arm.standing() for arm in self._arms)


class _LiveArm:
    """One arm: its trials by point, and its ranked points, in the search and in the finals."""

    def __init__(self, arm: int, mode: Mode) -> None:
        self._arm = arm
        self._place = place_of(mode)
        self._counts: Counter[TrialState] = Counter()
        self._seeds: defaultdict[tuple[Phase, int], dict[int, Ranked]] = defaultdict(dict)
        self._standings: dict[tuple[Phase, int], PointStanding] = {}
        self._ranked: dict[Phase, list[PointStanding]] = {phase: [] for phase in Phase}

    @property
    def num_trials(self) -> int:
        return self._counts.total()

    def update(self, trials: Iterable[Ranked]) -> None:
        touched = set()
        for trial in trials:
            point = trial.phase, trial.point
            before = self._seeds[point].get(trial.number)
            if before is not None:
                self._counts[before.state] -= 1
            self._counts[trial.state] += 1
            self._seeds[point][trial.number] = trial
            touched.add(point)
        for point in touched:
            self._judge(point)

    def standing(self) -> ArmStanding:
        return ArmStanding(
            arm=self._arm,
            ranked=tuple(self._ranked[Phase.SEARCH]),
            finals=tuple(self._ranked[Phase.FINAL]),
            num_trials={state: self._counts[state] for state in TrialState},
        )

    def _judge(self, point: tuple[Phase, int]) -> None:
        ranked, seeds = self._ranked[point[0]], self._seeds[point]
        before = self._standings.pop(point, None)
        if before is not None:
            del ranked[bisect_left(ranked, self._place(before), key=self._place)]
        now = point_standing([seeds[number] for number in sorted(seeds)])
        if now is not None:
            self._standings[point] = now
            insort(ranked, now, key=self._place)
