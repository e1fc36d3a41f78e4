"""What stopping early has cost: the audited trials, which were stopped and then run to the end all the same.

A stop was wrong if the trial would have beaten every point of its arm that completed. Audited are those nearest to the
cut, so the rate among them is an upper guess of the rate among all. Its interval is Clopper and Pearson's (1934), which
covers at least 95 %: with k wrong of n,

    [B(0.025; k, n - k + 1), B(0.975; k + 1, n - k)],      B = quantile of the beta distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.outcomes import Mode
from spectune.service.campaign.model.records import Phase, TrialRecord

_TAIL = 0.025


@dataclass(frozen=True)
class StopRegret:
    """How often stopping was wrong in an arm.

    Attributes:
        num_audited: Stopped trials that were run to the end.
        num_wrong: Those that would have been the arm's best.
        rate: num_wrong / num_audited.
        interval: Its 95 % interval.
        largest: How much better the best of them would have been; 0 where none was.
    """

    num_audited: int
    num_wrong: int
    rate: float
    interval: tuple[float, float]
    largest: float


def stop_regret(trials: Sequence[TrialRecord], *, best: float | None, mode: Mode) -> StopRegret | None:
    """Judge an arm's stops; None where nothing was audited or nothing completed.

    Args:
        trials: The arm's trials.
        best: The best value of a point that completed in the search.
        mode: Whether small or large values are better.
    """
    audited = [trial for trial in trials if trial.phase is Phase.AUDIT and trial.state.is_terminal]
    told = [trial for trial in audited if trial.state in (TrialState.COMPLETED, TrialState.DIVERGED)]
    if best is None or not told:
        return None
    sign = 1.0 if mode == "minimize" else -1.0
    gains = [sign * (best - value) for trial in told if (value := _final(trial)) is not None]
    wrong = [gain for gain in gains if gain > 0]
    return StopRegret(
        num_audited=len(told),
        num_wrong=len(wrong),
        rate=len(wrong) / len(told),
        interval=rate_interval(len(wrong), len(told)),
        largest=max(wrong, default=0.0),
    )


def rate_interval(num_hits: int, num_tries: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate from at least one try."""
    from scipy.special import betaincinv  # a third of a second of imports

    num_others = num_tries - num_hits
    low = 0.0 if num_hits == 0 else float(betaincinv(num_hits, num_others + 1, _TAIL))
    high = 1.0 if num_others == 0 else float(betaincinv(num_hits + 1, num_others, 1 - _TAIL))
    return low, high


def _final(trial: TrialRecord) -> float | None:
    """Return a trial's final value; None where it diverged."""
    is_there = trial.state is TrialState.COMPLETED and trial.objective is not None and math.isfinite(trial.objective)
    return trial.objective if is_there else None
