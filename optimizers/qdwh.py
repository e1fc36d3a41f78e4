"""QDWH: the polar factor by dynamically weighted Halley steps (Nakatsukasa, Bai, Gygi, SIMAX 31 (2010) 2700).

    X <- X (a I + b XᵀX) (I + c XᵀX)⁻¹ = (b / c) X + (a − b / c) / c · X (XᵀX + I / c)⁻¹

with the weights (ibid. eq. 3.4) that make the map of [ℓ, 1] largest at its lower end,

    d = (4 (1 − ℓ²) / ℓ⁴)^⅓,   a = √(1 + d) + √(8 − 4 d + 8 (2 − ℓ²) / (ℓ² √(1 + d))) / 2,   b = (a − 1)² / 4,
    c = a + b − 1,             ℓ <- ℓ (a + b ℓ²) / (1 + c ℓ²)

It converges cubically: four steps from the default ℓ₀. ℓ₀ is given on the host and alone fixes the weights and their
number; it is not estimated from the matrix. Steps with c > 100 go through QR or a Cholesky in twice the precision, the
others through Cholesky, which keeps the method backward stable (Nakatsukasa and Higham, SIAM J. Sci. Comput. 35 (2013)
A1325, section 3).

Error ‖X − U Vᵀ‖_F / √m at full rank: at most ε (4 + 0.2 κ), ε of the arithmetic, as the polar factor's own condition
allows. The official PolarGrad takes two steps only, which leaves singular values at 0.73 to 0.995.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from optimizers.rational import LOWEST, check_lowest, polar_by, resolvent

Weights = tuple[float, float, float]


@lru_cache
def qdwh_schedule(l0: float, accuracy: float) -> tuple[Weights, ...]:
    """Give the weights (a, b, c) of each step that takes [ℓ₀, 1] to within √accuracy of 1, which the last step squares.

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


def qdwh(matrix: Tensor, *, dtype: torch.dtype, l0: float = LOWEST, steps: int | None = None) -> Tensor:
    """Give the polar factor of each matrix.

    Args:
        matrix: Real floating point, shape [..., rows, columns], tall or wide.
        dtype: float32 or float64, of the arithmetic.
        l0: Singular values from ℓ₀ times the matrix's Schatten-8 norm up converge; see `rational.LOWEST`.
        steps: Stops after as many Halley steps even where the schedule has more; one Newton-Schulz step follows.

    Returns:
        Shape and dtype of `matrix`. Rank-deficient: the compact factor, to about 4 ε / ℓ₀. Zero gives zero, a
        non-finite matrix NaN.

    Raises:
        ValueError: An l0 outside (0, 1].
    """
    schedule = qdwh_schedule(l0, torch.finfo(dtype).eps)[:steps]
    return polar_by(lambda X: _halley(X, schedule), matrix, dtype=dtype)


def _halley(X: Tensor, schedule: tuple[Weights, ...]) -> Tensor:
    for a, b, c in schedule:
        (solved,) = resolvent(X, [1 / c])
        X = solved.mul_((a - b / c) / c).add_(X, alpha=b / c)
    return X
