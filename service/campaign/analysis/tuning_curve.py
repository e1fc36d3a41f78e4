"""Tuning curves: the value that so many points of an arm's search would reach.

Where points are drawn independently and run to the end (random search without stopping over a space with reals), the
best of k of them has the quantiles F^-1(1 - (1 - q)^(1/k)), and simultaneous 95 % bands of F give bands of the curve
that assume nothing about F (Lourie et al. 2024, arXiv:2311.09480; `opda`): exact where no two values are equal, else by
the inequality of Dvoretzky, Kiefer and Wolfowitz, which is wider. Anywhere else points depend on each other or
on what was stopped, bands would be wrong, and the curve is the best value so far of this one search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectune.search_spaces import Space
from spectune.search_spaces.axes import RealAxis
from spectune.service.campaign.model.outcomes import Mode
from spectune.service.campaign.search.samplers import SamplerName

CONFIDENCE = 0.95
_FEWEST = 4  # points below which a band would be open everywhere
_MOST = 300  # opda's time grows with the square: seconds


@dataclass(frozen=True)
class TuningCurve:
    """The value after 1, 2, ... points.

    Attributes:
        median: The median of the best value or, without a band, the best so far; infinite where all diverged.
        low: The band's lower end; None without a band; infinite where it is open.
        high: The band's upper end likewise.
        reason: Why there is no band; empty where there is one.
    """

    median: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    reason: str


def why_no_band(sampler: SamplerName, *, is_stopped: bool, space: Space, num_points: int) -> str:
    """Return why bands would be wrong for a search; empty where they are valid."""
    if sampler != "random":
        return f"points of {sampler} depend on each other"
    if is_stopped:
        return "some points were stopped before their end"
    if not any(isinstance(axis, RealAxis) for axis in space.axes.values()):
        return "points of a finite space are drawn without replacement"
    if num_points < _FEWEST:
        return f"{num_points} points are too few"
    if num_points > _MOST:
        return f"{num_points} points would take too long; bands are drawn for at most {_MOST}"
    return ""


def tuning_curve(values: Sequence[float], *, mode: Mode, reason: str) -> TuningCurve:
    """Draw the curve of one arm.

    Args:
        values: The final value of each point in the order in which they were asked for; one that diverged is infinitely
            bad, whatever its sign says.
        mode: Whether small or large values are better.
        reason: Why a band would be wrong; empty where it is valid.
    """
    minimize = mode == "minimize"
    worst = math.inf if minimize else -math.inf
    seen = np.array([value if math.isfinite(value) else worst for value in values])
    if reason or not len(seen):
        best = np.minimum.accumulate(seen) if minimize else np.maximum.accumulate(seen)
        return TuningCurve(tuple(best.tolist()), None, None, reason or "no point has ended")
    from opda.nonparametric import EmpiricalDistribution  # a second of imports

    counts = np.arange(1, len(seen) + 1)
    has_ties = len(set(seen.tolist())) < len(seen)  # the exact bands need a continuous distribution
    method = "dkw" if has_ties else "ld_equal_tailed"
    bands = EmpiricalDistribution.confidence_bands(
        seen, confidence=CONFIDENCE, method=method, generator=np.random.default_rng(0), n_jobs=1
    )
    curves = [band.quantile_tuning_curve(counts, q=0.5, minimize=minimize) for band in bands]
    lower, upper = np.minimum(curves[0], curves[2]), np.maximum(curves[0], curves[2])
    return TuningCurve(tuple(curves[1].tolist()), tuple(lower.tolist()), tuple(upper.tolist()), "")
