"""How a point did, told from how its seeds did; the search and the leaderboard read it here.

any seed still open                    open
else any DIVERGED, or not finite       DIVERGED     a configuration that fails on one seed of n is not to be trusted
else any STOPPED                       STOPPED      there is no final value to compare for all its seeds
else any COMPLETED                     COMPLETED    the mean over the completed seeds
else                                   FAILED       FAILED, LOST and CANCELLED say nothing about the configuration
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal, TypeAlias

from spectune.service.campaign.model.lifecycle import TrialState

Mode: TypeAlias = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class SeedHistory:
    """What is known of a point's trial with one seed.

    Attributes:
        reports: The objective at each step that reported it; may be NaN or infinite.
        outcome: How the trial ended; None while it has not.
        value: The final objective of a COMPLETED trial.
        further: The final values of further objectives, where the campaign has them.
    """

    reports: Mapping[int, float] = field(default_factory=dict)
    outcome: TrialState | None = None
    value: float | None = None
    further: tuple[float, ...] = ()


def point_outcome(seeds: Sequence[SeedHistory]) -> TrialState | None:
    """Return how a point ended; None while one of its seeds is open."""
    outcomes = {seed.outcome for seed in seeds}
    if None in outcomes:
        return None
    if TrialState.DIVERGED in outcomes or any(_ended_nowhere(seed) for seed in seeds):
        return TrialState.DIVERGED
    for outcome in (TrialState.STOPPED, TrialState.COMPLETED):
        if outcome in outcomes:
            return outcome
    return TrialState.FAILED


def final_values(seeds: Sequence[SeedHistory]) -> list[float]:
    """List the final values of the completed seeds."""
    return [seed.value for seed in seeds if seed.outcome is TrialState.COMPLETED and seed.value is not None]


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one finite value; it is finite, too, though their sum may not be."""
    try:
        return fmean(values)
    except OverflowError:
        return math.fsum(value / len(values) for value in values)


def mean_reports(seeds: Sequence[SeedHistory]) -> dict[int, float]:
    """Average the reports of the seeds that say something, where all of them reported a finite value."""
    telling = [seed.reports for seed in seeds if seed.outcome in (TrialState.COMPLETED, TrialState.STOPPED)]
    if not telling:
        return {}
    steps = sorted(set(telling[0]).intersection(*telling[1:]))
    means = {step: mean([reports[step] for reports in telling]) for step in steps}
    return {step: mean for step, mean in means.items() if math.isfinite(mean)}


def worst_finite(histories: Sequence[Sequence[SeedHistory]], *, mode: Mode) -> float:
    """Return the worst finite value that any seed of any point has shown; 0 where there is none."""
    seen = [value for seeds in histories for seed in seeds for value in (*seed.reports.values(), *final_values([seed]))]
    pick = max if mode == "minimize" else min
    return pick((value for value in seen if math.isfinite(value)), default=0.0)


def _ended_nowhere(seed: SeedHistory) -> bool:
    if seed.outcome is not TrialState.COMPLETED:
        return False
    return seed.value is None or not all(map(math.isfinite, (seed.value, *seed.further)))
