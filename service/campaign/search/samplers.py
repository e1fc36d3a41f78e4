"""The samplers by name: which look at what was observed, how many points they need first, and what they cannot do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from spectune.search_spaces import Space, When
from spectune.search_spaces.axes import Coordinate, OptionAxis, RealAxis
from spectune.service.campaign.search.adaptive import (
    NUM_STARTUP,
    Ask,
    gp_coordinates,
    nsga2_coordinates,
    nsga2_population,
    tpe_coordinates,
)
from spectune.service.campaign.search.evolution import cmaes_coordinates, cmaes_population

SamplerName: TypeAlias = Literal["random", "grid", "sobol", "tpe", "gp", "cmaes", "nsga2"]


@dataclass(frozen=True)
class AdaptiveSampler:
    """A sampler that looks at what was observed.

    Attributes:
        draw: Draws coordinates for one ask, without end.
        num_startup: How many points must have ended before it models anything, in a space and with so many points in
            all; the points until then are random.
        num_objectives: How many objectives it takes.
    """

    draw: Callable[[Ask], Iterator[dict[str, Coordinate]]]
    num_startup: Callable[[Space, int], int]
    num_objectives: int = 1


ADAPTIVE_SAMPLERS: Mapping[SamplerName, AdaptiveSampler] = {
    "tpe": AdaptiveSampler(tpe_coordinates, lambda space, points: NUM_STARTUP),
    "gp": AdaptiveSampler(gp_coordinates, lambda space, points: NUM_STARTUP),
    "cmaes": AdaptiveSampler(cmaes_coordinates, lambda space, points: cmaes_population(max(space.num_axes, 1))),
    "nsga2": AdaptiveSampler(nsga2_coordinates, lambda space, points: nsga2_population(points), num_objectives=2),
}

_NO_CONDITIONS = ("gp", "cmaes")  # their models would take an axis that does not count for one that has no effect
_MOST_GP_POINTS = 1000  # a Gaussian process of n points takes n^3: minutes an ask beyond
_MOST_CMAES_AXES = 100


def space_problem(sampler: SamplerName, space: Space, *, num_levels: int | None) -> tuple[str, str] | None:
    """Return why a sampler cannot search a space: the hyperparameter in the way ("" for all of it), and a message.

    Args:
        sampler: Which.
        space: What varies.
        num_levels: Values of each real domain in a grid, where that was said.
    """
    for name, domain in space.items():
        axes = domain.axes(name).values()
        if sampler in _NO_CONDITIONS and isinstance(domain, When):
            return name, f"the sampler {sampler!r} takes no `when`; random, grid, sobol and tpe do"
        if sampler == "cmaes" and any(isinstance(axis, OptionAxis) and len(axis.shares) > 2 for axis in axes):
            return name, "the sampler 'cmaes' needs an order, and more than two choices have none; tpe and gp take them"
        if sampler == "grid" and num_levels is None and any(isinstance(axis, RealAxis) for axis in axes):
            return name, "a grid has no end of values here: give search.levels, or a choice"
    if sampler == "cmaes" and not 2 <= space.num_axes <= _MOST_CMAES_AXES:
        return "", f"the sampler 'cmaes' needs 2 to {_MOST_CMAES_AXES} axes, and this space has {space.num_axes}"
    return None


def points_problem(sampler: SamplerName, points: int) -> str | None:
    """Return why a sampler cannot be asked for so many points; None where it can."""
    if sampler == "gp" and points > _MOST_GP_POINTS:
        return f"the sampler 'gp' takes at most {_MOST_GP_POINTS} points: each ask needs their number cubed"
    return None
