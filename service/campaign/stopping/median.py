"""The median rule (Golovin et al. 2017, Google Vizier).

From the first step on, every report is a rung with the factor 2, but a
trial that was stopped or diverged before counts there as lost: n does not shrink, so that a trial is stopped where it
falls behind half of all trials, not behind half of those that are left. With fewer than three nothing is stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.outcomes import Mode
from spectune.service.campaign.stopping.halving import SuccessiveHalving

_FEWEST = 3  # trials below which nothing is stopped


class Median(SuccessiveHalving):
    """Compares trials at every report: one that falls behind half of all is stopped.

    Args:
        steps: The steps at which trials are compared, rising.
        mode: Whether small or large values are better.
        deterministic: Whether decisions must not depend on the order of arrival.
    """

    def __init__(self, steps: Sequence[int], *, mode: Mode = "minimize", deterministic: bool = False) -> None:
        super().__init__(steps, reduction_factor=2, mode=mode, deterministic=deterministic)
        self._lost: dict[int, int] = {}  # trial -> the last step at which it was compared

    def end(self, trial: int, outcome: TrialState) -> None:
        """Let a trial take part no more; one that was stopped or diverged has lost at every later step."""
        if outcome in (TrialState.STOPPED, TrialState.DIVERGED) and trial in self._live:
            self._lost[trial] = max((rung for rung, values in self._values.items() if trial in values), default=0)
        self._live.discard(trial)

    def _standing(self, trial: int, rung: int) -> tuple[int, int]:
        """Count those that lost before behind all that are there."""
        rank, num_rivals = super()._standing(trial, rung)
        lost = (other for other, last in self._lost.items() if last < rung)
        return rank, num_rivals + sum(other < trial or not self._deterministic for other in lost)

    def _num_kept(self, num_rivals: int) -> int:
        return num_rivals if num_rivals < _FEWEST else super()._num_kept(num_rivals)
