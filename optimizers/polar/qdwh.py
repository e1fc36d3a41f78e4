"""QDWH: the polar factor by dynamically weighted Halley steps (Nakatsukasa, Bai, Gygi, SIMAX 31 (2010) 2700).

    X <- X (a I + b XᵀX) (I + c XᵀX)⁻¹ = (b / c) X + (a − b / c) / c · X (XᵀX + I / c)⁻¹

with the weights (ibid. eq. 3.4) that make the map of [ℓ, 1] largest at its lower end,

    d = (4 (1 − ℓ²) / ℓ⁴)^⅓,   a = √(1 + d) + √(8 − 4 d + 8 (2 − ℓ²) / (ℓ² √(1 + d))) / 2,   b = (a − 1)² / 4,
    c = a + b − 1,             ℓ <- ℓ (a + b ℓ²) / (1 + c ℓ²)

It converges cubically: four steps from float32's default ℓ₀, five from float64's. ℓ₀ is given on the host and alone
fixes the weights and their number; it is not estimated from the matrix. In float32 the last two, [0.56, 1] to one, are
taken by products instead (`shortened_schedule`). Steps with c > 100 go through QR or a Cholesky in twice the precision,
the others through Cholesky, which keeps the method backward stable (Nakatsukasa and Higham, SIAM J. Sci. Comput. 35
(2013) A1325, section 3).

Error ‖X − U Vᵀ‖_F / √m at full rank: at most ε (4 + 0.2 κ), ε of the arithmetic, as the polar factor's own condition
allows, for κ up to 1e6 in float32 and 1e12 in float64 (`rational.LOWEST`).

With fewer steps than that, and no ℓ₀ of the caller's, the steps are those of PolarGrad's official code (github
timlautk/polargrad, 79f3c6f): from G / √(‖G‖₁ ‖G‖_∞) with the weights for ℓ₀ = ε. It takes two by default, which leave
singular values at 0.73 to 0.995 in float32, and its curves were published with them.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from spectune.optimizers.arithmetic import exact_dtype
from spectune.optimizers.polar.coefficients import Triple
from spectune.optimizers.polar.minimax import optimal_quintic
from spectune.optimizers.polar.rational import LOWEST, check_lowest, dtype_of_solve, newton_schulz, polar_by, resolvent
from spectune.optimizers.scratch import may_overwrite

Weights = tuple[float, float, float]

MOST_NARROW = 0.9
"""ℓ above which the quintic of [ℓ, 1] is that of [0.9, 1]: an interval of one point has none."""


@lru_cache
def qdwh_schedule(l0: float, accuracy: float) -> tuple[Weights, ...]:
    """Return the weights (a, b, c) of the steps that take [ℓ₀, 1] to within √accuracy of 1, which the last one squares.

    Args:
        l0: Above 0, at most 1.
        accuracy: The machine epsilon of the arithmetic.
    """
    check_lowest(l0)
    weights, lowest = [], l0
    while 1.5 * (1 - lowest) ** 2 > accuracy:
        squared = lowest * lowest
        d = (4 * (1 - squared) / squared**2) ** (1 / 3)
        root = math.sqrt(1 + d)
        a = root + math.sqrt(8 - 4 * d + 8 * (2 - squared) / (squared * root)) / 2
        b = (a - 1) ** 2 / 4
        c = a + b - 1
        weights.append((a, b, c))
        lowest = min(1.0, lowest * (a + b * squared) / (1 + c * squared))
    return tuple(weights)


def qdwh(matrix: Tensor, *, dtype: torch.dtype, l0: float | None = None, steps: int | None = None) -> Tensor:
    """Return the polar factor of each matrix.

    Args:
        matrix: Real floating point, shape [..., rows, columns], tall or wide.
        dtype: float32 or float64, of the arithmetic.
        l0: Singular values from ℓ₀ times the matrix's Schatten-8 norm up converge; by default `rational.LOWEST`.
        steps: Stops after as many Halley steps even if the schedule has more; one Newton-Schulz step follows. Without
            an l0 these are the official code's.

    Returns:
        Shape and dtype of `matrix`. Rank-deficient: the compact factor, to about 4 ε / ℓ₀. Zero gives zero, a
        non-finite matrix NaN.

    Raises:
        ValueError: An l0 outside (0, 1].
    """
    accuracy, exact = torch.finfo(dtype).eps, exact_dtype(dtype, matrix.device)
    schedule = qdwh_schedule(LOWEST[dtype] if l0 is None else l0, accuracy)
    if l0 is None and steps is not None and steps < len(schedule):
        official = qdwh_schedule(accuracy, accuracy)[:steps]
        return polar_by(lambda X: _halley(X, official), matrix, dtype=exact, by_sums=True)
    if dtype == torch.float32 and (steps is None or steps >= len(schedule)):
        solves, quintic, cubic = shortened_schedule(LOWEST[dtype] if l0 is None else l0, accuracy)
        return polar_by(lambda X: _polished(_halley(X, solves), quintic, cubic), matrix, dtype=exact)
    return polar_by(lambda X: _halley(X, schedule[:steps]), matrix, dtype=exact)


@lru_cache
def shortened_schedule(l0: float, accuracy: float) -> tuple[tuple[Weights, ...], Triple, tuple[float, float]]:
    """Return the first steps of the schedule, and a quintic and a cubic for what they leave instead of its last ones.

    The quintic of least error E on [ℓ, 1], then 3/2 s − 1/2 s³, which sends [1 − E, 1 + E] into [1 − 3/2 E², 1] up to
    E³, times 1 + 3/4 E²; the last step of `polar_by` squares the 3/4 E² that is left. Two solves fewer for three
    products more, on a CPU a quarter of the time.

    Args:
        l0: Above 0, at most 1.
        accuracy: As for `qdwh_schedule`.
    """
    schedule, lowest = qdwh_schedule(l0, accuracy), l0
    for taken in range(len(schedule) + 1):
        quintic = optimal_quintic(min(lowest, MOST_NARROW), 1.0)
        error = 1 - sum(quintic)
        if 1.5 * (0.75 * error**2) ** 2 <= accuracy / 2:
            break
        a, b, c = schedule[taken]
        lowest = min(1.0, lowest * (a + b * lowest**2) / (1 + c * lowest**2))
    centred = 1 + 0.75 * error**2
    return schedule[:taken], quintic, (1.5 * centred, -0.5 * centred)


def _halley(X: Tensor, schedule: tuple[Weights, ...]) -> Tensor:
    dtype = X.dtype
    for a, b, c in schedule:
        X = X.to(dtype_of_solve([1 / c], dtype))
        (solved,) = resolvent(X, [1 / c], dtype=dtype)
        out = solved if may_overwrite(solved) else None
        X = torch.add(torch.mul(solved, (a - b / c) / c, out=out), X, alpha=b / c, out=out)
    return X.to(dtype)


def _polished(X: Tensor, quintic: Triple, cubic: tuple[float, float]) -> Tensor:
    a, b, c = quintic
    A = (X.mT @ X).reshape(-1, X.shape[-1], X.shape[-1])
    B = torch.baddbmm(A, A, A, beta=b, alpha=c)
    flat = X.reshape(-1, *X.shape[-2:])
    return newton_schulz(torch.baddbmm(flat, flat, B, beta=a).reshape(X.shape), *cubic)
