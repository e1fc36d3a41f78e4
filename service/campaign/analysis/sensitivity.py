"""How much an arm's hyperparameters matter, from the points that completed.

**Basin.** The points within ε of the best, ε a tenth of the way from the best to the median of all: the range of each
hyperparameter among them, and that range as a share of the searched one on its own scale. A share near 1 says that any
value will do, a small one that it must be tuned. Of n points in the basin the ends are uncertain by about 1 / n.

**Importance** (PED-ANOVA, Watanabe et al. 2023, arXiv:2304.10255). How much more often the better points lie somewhere
than all do, as a share of the sum over hyperparameters; a hyperparameter that is searched on two axes has their sum.

**Edges.** A best value within a twentieth of a bound says that the bound, not the optimizer, chose it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import optuna

from spectune.search_spaces import (
    Space,
)
from spectune.search_spaces.axes import Coordinate
from spectune.search_spaces.json_values import is_number
from spectune.search_spaces.optuna_domains import distributions
from spectune.search_spaces.scales import Scale
from spectune.service.campaign.model.outcomes import Mode

BASIN_SHARE = 0.1  # of the distance from the best to the median
EDGE_SHARE = 0.05  # of the searched range
_EXTENSION = 0.25  # of the searched range
_FEWEST_IN_BASIN = 3
_FEWEST_FOR_IMPORTANCE = 10


@dataclass(frozen=True)
class Completed:
    """A point that completed: its configuration, where it lies on the axes, and its value."""

    config: Mapping[str, Any]
    coordinates: Mapping[str, Coordinate]
    value: float


@dataclass(frozen=True)
class Basin:
    """Where one hyperparameter lies among the points that are nearly as good as the best.

    Attributes:
        low: Its smallest value there.
        high: Its largest.
        share: That range as a share of the searched one, on the scale of the search.
        decades: log10(high / low) where the search is logarithmic; else None.
        num_points: How many points those are.
    """

    low: float
    high: float
    share: float
    decades: float | None
    num_points: int


@dataclass(frozen=True)
class Edge:
    """A best value at a bound.

    Attributes:
        name: The hyperparameter.
        value: Its value in the best point.
        bound: The bound.
        extend_to: A bound a quarter of the range further out; None where the optimizer allows nothing there.
    """

    name: str
    value: float
    bound: float
    extend_to: float | None


def basins(space: Space, points: Sequence[Completed], *, mode: Mode) -> dict[str, Basin]:
    """Measure the basin of every hyperparameter with an order; empty with fewer than three points in it."""
    if not points:
        return {}
    sign = 1.0 if mode == "minimize" else -1.0
    losses = [sign * point.value for point in points]
    limit = min(losses) + BASIN_SHARE * (median(losses) - min(losses))
    inside = [point for point, loss in zip(points, losses, strict=True) if loss <= limit]
    found = {name: _basin(name, scale, inside) for name, scale in _scales(space).items()}
    return {name: basin for name, basin in found.items() if basin is not None}


def importances(space: Space, points: Sequence[Completed], *, mode: Mode) -> dict[str, float]:
    """Return each hyperparameter's share of importance; empty with fewer than ten points or one hyperparameter."""
    axes = distributions(space)
    if len(points) < _FEWEST_FOR_IMPORTANCE or len(axes) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=mode, sampler=optuna.samplers.RandomSampler(seed=0))
    for point in points:
        study.add_trial(
            optuna.trial.create_trial(params=dict(point.coordinates), distributions=axes, value=point.value)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns where all values are equal
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        told = optuna.importance.get_param_importances(study, evaluator=evaluator)
    owner = {axis: name for name, domain in space.items() for axis in domain.axes(name)}
    shares: dict[str, float] = {}
    for axis, share in told.items():
        shares[owner[axis]] = shares.get(owner[axis], 0.0) + float(share)
    return dict(sorted(shares.items(), key=lambda each: -each[1]))


def edges(space: Space, best: Completed, *, is_allowed: Callable[[str, float], bool]) -> list[Edge]:
    """List the hyperparameters whose best value is at a bound of the search.

    Args:
        space: What was searched.
        best: The best point.
        is_allowed: Whether the optimizer takes a value of a hyperparameter.
    """
    found = []
    for name, scale in _scales(space).items():
        value: Any = best.config.get(name)
        if not is_number(value) or (value == 0 and scale.is_log):  # zero stands apart from a logarithmic range
            continue
        unit = scale.unit(value)
        if EDGE_SHARE <= unit <= 1 - EDGE_SHARE:
            continue
        bound, further = (
            (scale.low, scale.at(-_EXTENSION)) if unit < EDGE_SHARE else (scale.high, scale.at(1 + _EXTENSION))
        )
        found.append(Edge(name, value, bound, further if is_allowed(name, further) else None))
    return found


def _scales(space: Space) -> dict[str, Scale]:
    """Return the scale of every hyperparameter that has an order."""
    return {name: scale for name, domain in space.items() if (scale := domain.scale()) is not None}


def _basin(name: str, scale: Scale, inside: Sequence[Completed]) -> Basin | None:
    values = [point.config[name] for point in inside if is_number(point.config.get(name))]
    values = [value for value in values if value != 0 or not scale.is_log]
    if len(values) < _FEWEST_IN_BASIN:
        return None
    low, high = min(values), max(values)
    return Basin(
        low=low,
        high=high,
        share=scale.unit(high) - scale.unit(low),
        decades=math.log10(high / low) if scale.is_log else None,
        num_points=len(values),
    )
