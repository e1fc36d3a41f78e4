"""Successive halving within one arm, ours because Optuna's rules judge one trial at a time and depend on their order.

**Successive halving** (arXiv:1502.07943, asynchronous: arXiv:1810.05934). A report at a rung goes on if its rank among
all values at that rung, its own included, is at most

    max(1, ceil(n / reduction_factor)),      n = how many values are at the rung,

smaller rank is better, equal values are ranked by trial number, and a value that is not finite never goes on. All
values of one submission enter before any of them is judged: of 27 that arrive together exactly 9 survive with a factor
3. The first to arrive has rank 1 and passes. What was decided is not decided again when more values come. A trial that
diverges enters its next rung with NaN: it was tried and lost, so it counts in n.

**Deterministic mode.** Trial t is compared with the trials of lower number only, and waits at the rung until each of
them that is still live has reported there or ended. So the decision is a function of the values alone, not of the order
of their arrival. The live trial with the lowest number never waits, so there is always one that can go on, provided
that free workers are given to the lowest number first.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.outcomes import Mode

_Rank: TypeAlias = tuple[bool, float, int]  # not finite, the value with small better, the trial


class RungOutcome(StrEnum):
    """What becomes of a trial at a rung."""

    KEEP = "keep"
    STOP = "stop"
    WAIT = "wait"  # for trials of lower number; ask again when something has happened


@dataclass(frozen=True)
class RungDecision:
    """What becomes of a trial, and why."""

    outcome: RungOutcome
    reason: str


class StoppingRule(Protocol):
    """Which trials of an arm are stopped."""

    def begin(self, trial: int) -> None:
        """Let a trial take part; trials must begin in the order of their numbers, before any of them is submitted."""

    def end(self, trial: int, outcome: TrialState) -> None:
        """Let a trial take part no more."""

    def submit(self, rung: int, reports: Iterable[tuple[int, float]]) -> dict[int, RungDecision]:
        """Enter all values of a report, then decide on each; a value that is there already is not replaced.

        Args:
            rung: The step.
            reports: Pairs of trial number and value.

        Raises:
            ValueError: There is no such rung, or a trial is not live.
        """

    def restore(self, reports: Mapping[int, Mapping[int, float]], *, ended: Mapping[int, TrialState]) -> None:
        """Take over what the ledger knows.

        A live trial that has reported beyond a rung was kept there. One whose last report is the rung's is decided when
        it is submitted again. The report with which a trial diverged was never submitted: `end` enters its NaN.

        Args:
            reports: For each trial, the objective at each step it has reported; trials without reports included.
            ended: For each trial that has ended, how.
        """


class SuccessiveHalving:
    """The rungs of one arm.

    Args:
        rungs: The steps at which trials are compared, rising.
        reduction_factor: One of so many goes on.
        mode: Whether small or large values are better.
        deterministic: Whether decisions must not depend on the order of arrival.
    """

    def __init__(
        self, rungs: Sequence[int], *, reduction_factor: int, mode: Mode = "minimize", deterministic: bool = False
    ) -> None:
        self._values: dict[int, dict[int, float]] = {rung: {} for rung in sorted(rungs)}
        self._ranked: dict[int, list[_Rank]] = {rung: [] for rung in self._values}
        self._factor = reduction_factor
        self._sign = 1.0 if mode == "minimize" else -1.0
        self._deterministic = deterministic
        self._live: set[int] = set()
        self._decided: dict[tuple[int, int], RungDecision] = {}

    def begin(self, trial: int) -> None:
        """Let a trial take part."""
        self._live.add(trial)

    def end(self, trial: int, outcome: TrialState) -> None:
        """Let a trial take part no more; one that diverged loses at its next rung."""
        next_rung = next((rung for rung, values in self._values.items() if trial not in values), None)
        if outcome is TrialState.DIVERGED and next_rung is not None and trial in self._live:
            self._enter(next_rung, trial, math.nan)
        self._live.discard(trial)

    def submit(self, rung: int, reports: Iterable[tuple[int, float]]) -> dict[int, RungDecision]:
        """Enter all values of a report, then decide on each."""
        if rung not in self._values:
            raise ValueError(f"the rungs are {list(self._values)}: got step {rung}")
        reports = list(reports)
        if strangers := [trial for trial, _ in reports if trial not in self._live]:
            raise ValueError(f"only live trials are judged: got {strangers}")
        for trial, value in reports:
            self._enter(rung, trial, value)
        return {trial: self._decide(trial, rung) for trial, _ in reports}

    def restore(self, reports: Mapping[int, Mapping[int, float]], *, ended: Mapping[int, TrialState]) -> None:
        """Take over what the ledger knows."""
        for trial in sorted(reports):
            self.begin(trial)
            last = max(reports[trial], default=0)
            for rung in self._values:
                if rung in reports[trial] and not (rung == last and ended.get(trial) is TrialState.DIVERGED):
                    self._enter(rung, trial, reports[trial][rung])
                    if last > rung and not self._deterministic:
                        self._decided[trial, rung] = RungDecision(RungOutcome.KEEP, f"was kept at step {rung}")
        for trial, outcome in ended.items():
            self.end(trial, outcome)

    def _enter(self, rung: int, trial: int, value: float) -> None:
        if trial not in self._values[rung]:
            self._values[rung][trial] = value
            insort(self._ranked[rung], self._order(trial, value))

    def _decide(self, trial: int, rung: int) -> RungDecision:
        known = self._decided.get((trial, rung))
        if known is not None:
            return known
        awaited = self._awaited(trial, rung)
        if awaited:
            return RungDecision(RungOutcome.WAIT, f"at step {rung}, for trials {awaited}")
        self._decided[trial, rung] = decision = self._judge(trial, rung)
        return decision

    def _awaited(self, trial: int, rung: int) -> list[int]:
        """List the live trials that a trial has to wait for at a rung."""
        if not self._deterministic:
            return []
        return sorted(other for other in self._live if other < trial and other not in self._values[rung])

    def _judge(self, trial: int, rung: int) -> RungDecision:
        value = self._values[rung][trial]
        rank, num_rivals = self._standing(trial, rung)
        num_kept = self._num_kept(num_rivals)
        is_kept = rank <= num_kept and math.isfinite(value)
        reason = f"rank {rank} of {num_rivals} at step {rung}, where {num_kept} go on: got {value:g}"
        return RungDecision(RungOutcome.KEEP if is_kept else RungOutcome.STOP, reason)

    def _standing(self, trial: int, rung: int) -> tuple[int, int]:
        """Return a trial's rank at a rung, and among how many."""
        ranked, mine = self._ranked[rung], self._order(trial, self._values[rung][trial])
        if self._deterministic:
            ranked = [each for each in ranked if each[-1] <= trial]
        return 1 + bisect_left(ranked, mine), len(ranked)

    def _num_kept(self, num_rivals: int) -> int:
        return max(1, -(-num_rivals // self._factor))

    def _order(self, trial: int, value: float) -> _Rank:
        return (True, 0.0, trial) if not math.isfinite(value) else (False, self._sign * value, trial)
