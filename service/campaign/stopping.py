"""Successive halving of one arm's trials, ours because Optuna's judges one trial at a time and depends on their order.

**Rule.** A report at a rung goes on if its rank among all values at that rung, its own included, is at most

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.campaign.outcomes import Mode


class RungVerdict(StrEnum):
    """What becomes of a trial at a rung."""

    KEEP = "keep"
    STOP = "stop"
    WAIT = "wait"  # for trials of lower number; ask again when something has happened


@dataclass(frozen=True)
class RungDecision:
    """A verdict and why."""

    verdict: RungVerdict
    reason: str


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
        self._factor = reduction_factor
        self._sign = 1.0 if mode == "minimize" else -1.0
        self._deterministic = deterministic
        self._live: set[int] = set()
        self._decided: dict[tuple[int, int], RungDecision] = {}
        self._waiting: dict[int, int] = {}  # trial -> the rung it waits at

    def begin(self, trial: int) -> None:
        """Let a trial take part; trials must begin in the order of their numbers, before any of them is submitted."""
        self._live.add(trial)

    def end(self, trial: int, *, diverged: bool = False) -> None:
        """Let a trial take part no more, however it ended; one that diverged loses at its next rung."""
        next_rung = next((rung for rung, values in self._values.items() if trial not in values), None)
        if diverged and next_rung is not None and trial in self._live:
            self._values[next_rung][trial] = math.nan
        self._live.discard(trial)
        self._waiting.pop(trial, None)

    def submit(self, rung: int, reports: Iterable[tuple[int, float]]) -> dict[int, RungDecision]:
        """Enter all values of a report, then decide on each; a value that is there already is not replaced.

        Args:
            rung: The step.
            reports: Pairs of trial number and value.

        Raises:
            ValueError: There is no such rung, or a trial is not live.
        """
        if rung not in self._values:
            raise ValueError(f"the rungs are {list(self._values)}: got step {rung}")
        reports = list(reports)
        if strangers := [trial for trial, _ in reports if trial not in self._live]:
            raise ValueError(f"only live trials are judged: got {strangers}")
        for trial, value in reports:
            self._values[rung].setdefault(trial, value)
        return {trial: self._decide(trial, rung) for trial, _ in reports}

    def resolve(self) -> dict[int, RungDecision]:
        """Decide on the trials that wait, as far as it can be done now."""
        decisions = {trial: self._decide(trial, rung) for trial, rung in sorted(self._waiting.items())}
        return {trial: made for trial, made in decisions.items() if made.verdict is not RungVerdict.WAIT}

    def restore(self, reports: Mapping[int, Mapping[int, float]], *, ended: Mapping[int, bool]) -> None:
        """Take over what the ledger knows.

        A live trial that has reported beyond a rung was kept there. One whose last report is the rung's is decided when
        it is submitted again. The report with which a trial diverged was never submitted: `end` enters its NaN.

        Args:
            reports: For each trial, the objective at each step it has reported; trials without reports included.
            ended: For each trial that has ended, whether it diverged.
        """
        for trial in sorted(reports):
            self.begin(trial)
            last = max(reports[trial], default=0)
            for rung, values in self._values.items():
                if rung in reports[trial] and not (rung == last and ended.get(trial, False)):
                    values[trial] = reports[trial][rung]
                    if max(reports[trial]) > rung and not self._deterministic:
                        self._decided[trial, rung] = RungDecision(RungVerdict.KEEP, f"was kept at step {rung}")
        for trial, diverged in ended.items():
            self.end(trial, diverged=diverged)

    def _decide(self, trial: int, rung: int) -> RungDecision:
        known = self._decided.get((trial, rung))
        if known is not None:
            return known
        awaited = self._awaited(trial, rung)
        if awaited:
            self._waiting[trial] = rung
            return RungDecision(RungVerdict.WAIT, f"at step {rung}, for trials {awaited}")
        self._waiting.pop(trial, None)
        self._decided[trial, rung] = decision = self._rank(trial, rung)
        return decision

    def _awaited(self, trial: int, rung: int) -> list[int]:
        """List the live trials that a trial has to wait for at a rung."""
        if not self._deterministic:
            return []
        return sorted(other for other in self._live if other < trial and other not in self._values[rung])

    def _rank(self, trial: int, rung: int) -> RungDecision:
        values = self._values[rung]
        rivals = [other for other in values if other <= trial] if self._deterministic else list(values)
        rank = 1 + sum(self._order(other, values) < self._order(trial, values) for other in rivals)
        num_kept = max(1, -(-len(rivals) // self._factor))
        is_kept = rank <= num_kept and math.isfinite(values[trial])
        reason = f"rank {rank} of {len(rivals)} at step {rung}, where {num_kept} go on: got {values[trial]:g}"
        return RungDecision(RungVerdict.KEEP if is_kept else RungVerdict.STOP, reason)

    def _order(self, trial: int, values: Mapping[int, float]) -> tuple[bool, float, int]:
        value = values[trial]
        return (True, 0.0, trial) if not math.isfinite(value) else (False, self._sign * value, trial)
