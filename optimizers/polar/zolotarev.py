"""Zolo-pd: the polar factor by two Zolotarev steps of high degree (Nakatsukasa and Freund, SIAM Rev. 58 (2016) 461).

The best rational approximation of sign on [−1, −ℓ] ∪ [ℓ, 1] of type (2 r + 1, 2 r) is Zolotarev's

    Z(x) = C x ∏ⱼ (x² + c₂ⱼ) / (x² + c₂ⱼ₋₁),    cᵢ = ℓ² sn²(i K' / (2 r + 1)) / cn²(i K' / (2 r + 1)),   i = 1 … 2 r

(ibid. eq. 3.2), elliptic functions of modulus √(1 − ℓ²), K' its quarter period. With Z(1) = 1 it maps [ℓ, 1] onto
[Z(ℓ), 1], and two such maps compose to the best of type ((2 r + 1)², …) (ibid. section 3.3). In partial fractions

    X <- C (X + Σⱼ aⱼ X (XᵀX + c₂ⱼ₋₁ I)⁻¹),   aⱼ = −∏ₖ (c₂ⱼ₋₁ − c₂ₖ) / ∏_{k ≠ j} (c₂ⱼ₋₁ − c₂ₖ₋₁)

the r solves are independent of each other: two rounds, where QDWH needs four. r is the smallest that suffices for ℓ₀,
the inverse of the largest condition number to expect: by default 3 in float32, 6 in float64. Errors and edge cases are
`qdwh`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from spectune.optimizers.arithmetic import exact_dtype
from spectune.optimizers.polar.rational import LOWEST, check_lowest, polar_by, resolvent

ROUNDS: Final = 2
MAX_DEGREE: Final = 8
"""Enough for κ = 1e16 in double precision (ibid. table 1)."""


@dataclass(frozen=True)
class ZolotarevStep:
    """One step: `factor` · (X + Σ weights · X (XᵀX + shifts)⁻¹); `lowest` is where it sends ℓ."""

    factor: float
    weights: tuple[float, ...]
    shifts: tuple[float, ...]
    lowest: float


def quarter_period(complementary: float) -> float:
    """Return K of the modulus √(1 − k'²) for k' in (0, 1], as π / 2 over the arithmetic-geometric mean of 1 and k'."""
    a, b = 1.0, complementary
    while abs(a - b) > 1e-15 * a:
        a, b = (a + b) / 2, math.sqrt(a * b)
    return math.pi / (a + b)


def jacobi_sn_cn(u: float, complementary: float) -> tuple[float, float]:
    """Return sn and cn at u in (0, K) for the modulus √(1 − k'²), by Gauss's descending transformation.

    The complementary modulus k' is the argument because 1 − k'² would round to 1. Relative error about 1e-14, cn
    included, which tends to zero at K.
    """
    means, roots, mean, root = [], [], 1.0, complementary
    while True:
        means.append(mean)
        roots.append(root)
        mean, root = (mean + root) / 2, math.sqrt(mean * root)
        if abs(means[-1] - roots[-1]) <= 1e-9 * means[-1]:  # the new mean then agrees to 1e-18
            break
    cotangent, dn = 1 / math.tan(mean * u), 1.0
    ratio = mean * cotangent
    for upper, lower in zip(reversed(means), reversed(roots), strict=True):
        product = cotangent * ratio
        ratio *= dn
        dn = (lower + product) / (upper + product)
        cotangent = ratio / upper
    sn = 1 / math.sqrt(1 + ratio * ratio)
    return sn, sn * ratio


def zolotarev_step(lowest: float, degree: int) -> ZolotarevStep:
    """Return the step of type (2 degree + 1, 2 degree) for [lowest, 1]."""
    period = quarter_period(lowest) / (2 * degree + 1)
    c = []
    for index in range(1, 2 * degree + 1):
        sn, cn = jacobi_sn_cn(index * period, lowest)
        c.append((lowest * sn / cn) ** 2)
    odd, even = c[::2], c[1::2]
    factor = math.prod((1 + shift) / (1 + zero) for shift, zero in zip(odd, even, strict=True))
    at_lowest = math.prod((lowest**2 + zero) / (lowest**2 + shift) for shift, zero in zip(odd, even, strict=True))
    return ZolotarevStep(factor, tuple(_weights(odd, even)), tuple(odd), min(1.0, factor * lowest * at_lowest))


def _weights(odd: list[float], even: list[float]) -> Iterator[float]:
    for j, shift in enumerate(odd):
        above = math.prod(shift - zero for zero in even)
        below = math.prod(shift - other for k, other in enumerate(odd) if k != j)
        yield -above / below


@lru_cache
def zolotarev_schedule(l0: float, accuracy: float) -> tuple[ZolotarevStep, ...]:
    """Return at most two steps of the smallest degree that takes [ℓ₀, 1] to within √accuracy of 1, or of degree 8.

    Args:
        l0: Above 0, at most 1.
        accuracy: The machine epsilon of the arithmetic; the last step of `rational` squares the rest.
    """
    check_lowest(l0)
    for degree in range(1, MAX_DEGREE + 1):
        steps: list[ZolotarevStep] = []
        lowest = l0
        while len(steps) < ROUNDS and 1.5 * (1 - lowest) ** 2 > accuracy:
            steps.append(zolotarev_step(lowest, degree))
            lowest = steps[-1].lowest
        if 1.5 * (1 - lowest) ** 2 <= accuracy:
            break
    return tuple(steps)


def zolo_pd(matrix: Tensor, *, dtype: torch.dtype, l0: float | None = None) -> Tensor:
    """Return the polar factor of each matrix.

    Args:
        matrix: Real floating point, shape [..., rows, columns], tall or wide.
        dtype: float32 or float64, of the arithmetic.
        l0: Singular values from ℓ₀ times the matrix's Schatten-8 norm up converge; it fixes the degree. By default
            `rational.LOWEST`.

    Returns:
        As `qdwh.qdwh`.

    Raises:
        ValueError: An l0 outside (0, 1].
    """
    schedule = zolotarev_schedule(LOWEST[dtype] if l0 is None else l0, torch.finfo(dtype).eps)
    return polar_by(lambda X: _rounds(X, schedule), matrix, dtype=exact_dtype(dtype, matrix.device))


def _rounds(X: Tensor, schedule: tuple[ZolotarevStep, ...]) -> Tensor:
    dtype = X.dtype
    for step in schedule:
        total = X
        for weight, solved in zip(step.weights, resolvent(X, list(step.shifts), dtype=dtype), strict=True):
            total = total + weight * solved
        X = step.factor * total
    return X.to(dtype)
