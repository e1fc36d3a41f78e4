"""The numbers of `coefficients.py` that are our own: greedy compositions of minimax odd quintics for sign.

The best p(s) = a s + b s³ + c s⁵ for sign on [l, u] in the maximum norm equioscillates (Chebyshev): there are
l < q < r < u with

    p(l) = 1 − E,    p(q) = 1 + E,    p(r) = 1 − E,    p(u) = 1 + E,    p'(q) = p'(r) = 0

Remez: solve the four linear equations for (a, b, c, E), move q and r to the roots of p', a quadratic in s², repeat. The
step maps [l, u] onto [1 − E, 1 + E], the interval of the next one. This greedy composition is the best of all
compositions of as many odd quintics (Amsel et al., arXiv 2505.16932, theorem 3.1), so the first k rows of a longer
table are the best k, and one table serves every number of steps.

`python -m spectune.optimizers.polar.rebuild_coefficients` prints the table that `coefficients.MINIMAX` holds. Plain
double arithmetic.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

from spectune.optimizers.polar.coefficients import MINIMAX, MINIMAX_LOWEST, MINIMAX_SAFETY, Triple, made_safe, repeated

PADE: Final[Triple] = (15 / 8, -10 / 8, 3 / 8)
"""The limit l, u -> 1: value 1 at 1, first and second derivative zero. It converges cubically by itself."""

NEARLY_ONE: Final = 5e-6
"""Where 1 − l/u is below this the four equations are singular to rounding, and E < 1e-17: the limit is taken."""

MOST_EXCHANGES: Final = 50
"""The exchange converges quadratically: ten rounds from l = 1e-6."""


def optimal_quintic(low: float, high: float) -> Triple:
    """Return the odd quintic nearest to 1 on [low, high].

    Args:
        low: Above 0.
        high: At least `low`.

    Returns:
        (a, b, c). Its values on the interval fill [1 − E, 1 + E], to about 1e-14; 1 − E is its value at `low`.

    Raises:
        ValueError: An interval that is empty or touches zero.
    """
    if not 0 < low <= high < math.inf:
        raise ValueError(f"an interval 0 < low <= high is needed: got {(low, high)}")
    l = low / high  # noqa: E741  # the letter of the paper
    if 1 - l <= NEARLY_ONE:
        return _rescaled(PADE, high)
    points, last = [l, (3 * l + 1) / 4, (l + 3) / 4, 1.0], math.inf
    for _ in range(MOST_EXCHANGES):
        triple, error = _equioscillating(points)
        if abs(last - error) <= 1e-15:
            break
        (a, b, c), last = triple, error
        root = math.sqrt(9 * b * b - 20 * a * c)
        points[1] = math.sqrt((-3 * b - root) / (10 * c))
        points[2] = math.sqrt((-3 * b + root) / (10 * c))
    return _rescaled(triple, high)


def greedy_composition(low: float, steps: int, *, cushion: float = 0.0) -> tuple[Triple, ...]:
    """Return the rows of a table for singular values in [low, 1].

    Args:
        low: Smallest singular value that is to converge, above 0 and at most 1.
        steps: How many rows.
        cushion: Polar Express (ibid. section 4.4) designs a row for [max(l, cushion · u), u], a milder slope at zero,
            and rescales it to lie evenly around 1 on [l, u]. Its table has 0.02407327424182761; 0 is optimal.

    Returns:
        One (a, b, c) a step.

    Raises:
        ValueError: As `optimal_quintic`.
    """
    l, u, rows = low, 1.0, []  # noqa: E741
    for _ in range(steps):
        a, b, c = optimal_quintic(max(l, cushion * u), u)
        at_low, at_high = _value((a, b, c), l), _value((a, b, c), u)
        around_one = 2 / (at_low + at_high)
        rows.append((a * around_one, b * around_one, c * around_one))
        l = min(_value(rows[-1], l), 1.0)  # noqa: E741  # rounding may carry it past 1
        u = 2 - l
    return tuple(rows)


@lru_cache
def minimax_triples(steps: int, *, l0: float = MINIMAX_LOWEST) -> tuple[Triple, ...]:
    """Return the first rows of the table for [ℓ₀, 1], made safe; its last, which converges by itself, is repeated.

    Args:
        steps: How many rows.
        l0: Above 0, at most 1. `coefficients.MINIMAX` is the table of the default; others are derived, 1 ms, once.
    """
    rows = MINIMAX if l0 == MINIMAX_LOWEST else greedy_composition(l0, max(steps, len(MINIMAX)))
    return repeated([*(made_safe(row, MINIMAX_SAFETY) for row in rows[:-1]), rows[-1]], steps)


def _value(triple: Triple, s: float) -> float:
    a, b, c = triple
    return s * (a + s * s * (b + s * s * c))


def _rescaled(triple: Triple, high: float) -> Triple:
    a, b, c = triple
    return a / high, b / high**3, c / high**5


def _equioscillating(points: list[float]) -> tuple[Triple, float]:
    """Solve a s + b s³ + c s⁵ ± E = 1 at the four points, by elimination with pivots."""
    rows = [[s, s**3, s**5, sign, 1.0] for s, sign in zip(points, (1.0, -1.0, 1.0, -1.0), strict=True)]
    for column in range(4):
        pivot = max(range(column, 4), key=lambda index: abs(rows[index][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for index in range(4):
            if index != column:
                factor = rows[index][column] / rows[column][column]
                rows[index] = [x - factor * y for x, y in zip(rows[index], rows[column], strict=True)]
    a, b, c, error = (rows[index][4] / rows[index][index] for index in range(4))
    return (a, b, c), error
