"""CMA-ES: points drawn from a normal distribution that moves towards the better ones (Hansen 2016, arXiv:1604.00772).

    x ~ N(m, s^2 C) in the unit cube;    a generation of p = 4 + floor(3 ln n) points updates m, s and C by their ranks

The distribution is a pure function of the points: generations are blocks of p of those that did not fail, in the order
in which they were asked for, and the leading blocks that have ended are told one after the other to a distribution that
begins at m = 1/2, s = 0.3. (Optuna's own sampler keeps its state as a pickle on a trial, where a crash would leave it.)
The first generation is drawn uniformly, which has the same mean and the standard deviation 0.289.

Ranks are all that is looked at, so that a point needs no value: COMPLETED ones by theirs, then STOPPED ones, the
furthest first, then DIVERGED ones.

An axis with more than two options has no order and cannot be searched so; with two, one of them is simply the higher.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from spectune.search_spaces.axes import Coordinate
from spectune.service.campaign.model.outcomes import point_outcome
from spectune.service.campaign.search.adaptive import Ask, is_told, order_of_end

if TYPE_CHECKING:
    from cmaes import CMA

_FIRST_SIGMA = 0.3  # Hansen's advice: the optimum is expected within m ± 3 s


def cmaes_population(num_axes: int) -> int:
    """Return how many points a generation has in so many dimensions (Hansen 2016, eq. 48)."""
    return 4 + math.floor(3 * math.log(num_axes))


def cmaes_coordinates(ask: Ask) -> Iterator[dict[str, Coordinate]]:
    """Draw coordinates, without end: the first is the point, the others replace repeats."""
    distribution = _distribution(ask)
    attempt = 0
    while True:
        distribution.reseed_rng(ask.seed(attempt))
        yield ask.space.coordinates_at(np.clip(distribution.ask(), 0.0, 1.0).tolist())
        attempt += 1


def _distribution(ask: Ask) -> CMA:
    """Tell a fresh distribution every generation that has ended."""
    from cmaes import CMA  # brings scipy.stats, most of a second that other samplers need not wait for

    size = cmaes_population(ask.space.num_axes)
    cube = np.tile([0.0, 1.0], (ask.space.num_axes, 1))
    made = CMA(mean=np.full(ask.space.num_axes, 0.5), sigma=_FIRST_SIGMA, bounds=cube, population_size=size, seed=0)
    points = [point for point in ask.points if point_outcome(point[1]) is None or is_told(point[1])]
    for start in range(0, len(points) - size + 1, size):
        generation = points[start : start + size]
        if any(point_outcome(seeds) is None for _, seeds in generation):
            break
        ordered = sorted(generation, key=lambda point: order_of_end(point[1], ask.modes[0]))
        made.tell([(np.array(ask.space.unit_at(at)), float(rank)) for rank, (at, _) in enumerate(ordered)])
    return made
