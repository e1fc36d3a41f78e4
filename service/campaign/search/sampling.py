"""Points that need nothing observed: pure functions of the search seed, the arm and the ask's number.

random   u_i uniform in the unit cube, each ask with a stream of its own
sobol    u_i the i-th point of a scrambled Sobol sequence (Owen 1998): any leading 2^k points fill the cube evenly,
         and the mean of n of them errs like n^-1 (log n)^d instead of n^-1/2
grid     every configuration of the grid, in an order shuffled by the search seed, so that a search that ends early
         has still looked everywhere
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from spectune.search_spaces import Space

_RANDOM_STREAM, _SOBOL_STREAM, _GRID_STREAM = 0, 2, 3  # 1 is adaptive.py's


def random_units(search_seed: int, *, arm: int, ask: int, num_axes: int) -> Iterator[list[float]]:
    """Draw points of the unit cube for one ask, without end: the first is the point, the others replace repeats."""
    draw = 0
    while True:
        yield _generator(search_seed, _RANDOM_STREAM, arm, ask, draw).random(num_axes).tolist()
        draw += 1


def sobol_units(search_seed: int, *, arm: int, index: int, num_axes: int) -> Iterator[list[float]]:
    """Yield the point of that index of a scrambled Sobol sequence, without end.

    The first is the point; those that replace repeats have the same index in sequences scrambled otherwise.
    """
    from scipy.stats import qmc  # 1.5 seconds of imports, for this sampler alone

    draw = 0
    while True:
        sequence = qmc.Sobol(num_axes, scramble=True, rng=_generator(search_seed, _SOBOL_STREAM, arm, draw))
        if index:  # scipy 1.17 cannot go forward by nothing
            sequence.fast_forward(index)
        yield sequence.random(1)[0].tolist()
        draw += 1


def shuffled_grid(space: Space, *, num_levels: int, search_seed: int, arm: int) -> list[dict[str, Any]]:
    """List every configuration of a space's grid in an order of the search seed's."""
    configs = list(space.grid(num_levels))
    order = _generator(search_seed, _GRID_STREAM, arm).permutation(len(configs))
    return [configs[place] for place in order]


def _generator(search_seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(search_seed, spawn_key=key)))
