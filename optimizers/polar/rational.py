"""What the rational iterations for the polar factor share: their start, their solves, their last step.

    start      tall; a thin QR where rows >= 1.5 columns, so that the iterations are square (polar(Q R) = Q polar(R));
               divided by the Schatten-8 norm, a deterministic bound within r^⅛ of σ₁ (`quintic.schatten_8`)
    solves     X (XᵀX + c I)⁻¹, by Cholesky where it cannot lose digits, for float32 in float64 where it then cannot,
               else by QR of [X; √c I]
    last step  X <- (3 X − X Xᵀ X) / 2, which squares what rounding has left

Every choice is made on the host from numbers given there, so nothing waits for the device. Torch's batched QR and
Cholesky take any leading dimensions; where one matrix is not finite they are given zeros in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from spectune.optimizers.polar.normalization import schatten_8, unit
from spectune.optimizers.scratch import may_overwrite

LOWEST: Final[dict[torch.dtype, float]] = {torch.float32: 2e-7, torch.float64: 2e-13}
"""Default ℓ₀ by the dtype of the arithmetic: singular values from ℓ₀ s up converge, so κ up to 1e6 in float32 and 1e12
in float64 with 4000 rows. Below it the factor falls short in proportion. The price is what the rounding noise of a
rank-deficient matrix becomes, about 4 ε / ℓ₀: 5e-3 in float64, as large as the factor in float32. An ℓ₀ of one's own
moves both: 1e-6 gives the compact factor to 1e-9 in float64."""

REDUCE_FROM: Final = 1.5
CHOLESKY_FROM: Final = 1e-2
"""Cholesky of XᵀX + c I, σ <= 1, loses log₁₀(1 + 1 / c) digits; Nakatsukasa and Higham take it from c = 1 / 100 on."""

DOUBLE_CHOLESKY_FROM: Final = 5e-10
"""For float32, Cholesky in double precision: it loses log₁₀(1 + 1 / c) of sixteen digits, so float32's seven remain. As
fast as QR on a CPU, and three to five times more exact (docs/decisions/0104)."""


def check_lowest(l0: float) -> None:
    """Refuse an ℓ₀ outside (0, 1].

    Raises:
        ValueError: With the value.
    """
    if isinstance(l0, bool) or not isinstance(l0, int | float) or not 0 < l0 <= 1:
        raise ValueError(f"l0 must be a number above 0 and at most 1: got {l0!r}")


def polar_by(
    iterate: Callable[[Tensor], Tensor], matrix: Tensor, *, dtype: torch.dtype, by_sums: bool = False
) -> Tensor:
    """Prepare a matrix, iterate, and undo the preparation.

    Args:
        iterate: Takes square or tall matrices [..., rows, columns] with σ₁ <= 1, up to rounding, nearly to their polar
            factor; zero to zero.
        matrix: Shape [..., rows, columns].
        dtype: float32 or float64, of all arithmetic.
        by_sums: Whether the start is divided by √(‖G‖₁ ‖G‖_∞), as in PolarGrad's official code; it is looser.

    Returns:
        Shape and dtype of `matrix`; NaN where a matrix is not finite.
    """
    rows, columns = matrix.shape[-2:]
    tall = (matrix.mT if rows < columns else matrix).to(dtype)
    finite = tall.abs().amax(dim=(-2, -1), keepdim=True).isfinite()
    start, _ = unit(torch.where(finite, tall, 0.0), eps=0.0)
    bound = _by_sums(start) if by_sums else None
    basis = None
    if start.shape[-2] >= REDUCE_FROM * start.shape[-1]:
        basis, start = torch.linalg.qr(start)
    if bound is None:
        gram = start.mT @ start
        bound = schatten_8(gram @ gram)
    X = newton_schulz(iterate(start / bound), 1.5, -0.5)
    X = X if basis is None else basis @ X
    X = torch.where(finite, X, torch.nan).to(matrix.dtype)
    return X.mT if rows < columns else X


def _by_sums(matrix: Tensor) -> Tensor:
    """Return √(‖G‖₁ ‖G‖_∞), at least σ₁, from the largest sums of magnitudes in a column and in a row; 1 for zero."""
    sizes = matrix.abs()
    columns, rows = (sizes.sum(dim=dim, keepdim=True).amax(dim=(-2, -1), keepdim=True) for dim in (-2, -1))
    bound = (columns * rows).sqrt()
    return torch.where(bound == 0, 1.0, bound)


def resolvent(X: Tensor, shifts: list[float], *, dtype: torch.dtype) -> list[Tensor]:
    """Return X (XᵀX + c I)⁻¹ for each shift c > 0.

    Args:
        X: Shape [..., rows, columns], rows >= columns, in `dtype` or more.
        shifts: Above 0.
        dtype: float32 or float64, whose accuracy is asked for.

    Returns:
        One tensor a shift, shape of X, in the dtype of `dtype_of_solve`.
    """
    exact = dtype_of_solve(shifts, dtype)
    X = X.to(exact)
    if min(shifts) < CHOLESKY_FROM and exact == dtype:
        return [_by_qr(X, shift) for shift in shifts]
    gram = X.mT @ X
    return [_by_cholesky(X, gram, shift) for shift in shifts]


def dtype_of_solve(shifts: list[float], dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which the shifts are solved for the accuracy of `dtype`."""
    in_double = dtype == torch.float32 and DOUBLE_CHOLESKY_FROM <= min(shifts) < CHOLESKY_FROM
    return torch.float64 if in_double else dtype


def _by_qr(X: Tensor, shift: float) -> Tensor:
    """[X; √c I] = [Q₁; Q₂] R gives X (XᵀX + c I)⁻¹ = Q₁ Q₂ᵀ / √c."""
    rows, columns = X.shape[-2:]
    identity = torch.eye(columns, dtype=X.dtype, device=X.device).expand(*X.shape[:-2], columns, columns)
    Q: Tensor = torch.linalg.qr(torch.cat([X / math.sqrt(shift), identity], dim=-2)).Q
    return Q[..., :rows, :] @ Q[..., rows:, :].mT / math.sqrt(shift)


def _by_cholesky(X: Tensor, gram: Tensor, shift: float) -> Tensor:
    shifted = gram / shift
    shifted.diagonal(dim1=-2, dim2=-1).add_(1.0)
    factor: Tensor = torch.linalg.cholesky_ex(shifted).L  # positive definite by construction: no check on the host
    # Two triangular solves from the right; a Cholesky solve works on Xᵀ, which lies badly, and takes longer.
    half = torch.linalg.solve_triangular(factor.mT, X, upper=True, left=False)
    solved: Tensor = torch.linalg.solve_triangular(factor, half, upper=False, left=False)
    return solved.div_(shift) if may_overwrite(solved) else solved / shift


def newton_schulz(X: Tensor, a: float, b: float) -> Tensor:
    """Return X (a I + b XᵀX) for [..., rows, columns]."""
    return torch.baddbmm(_flat(X), _flat(X), _flat(X.mT @ X), beta=a, alpha=b).reshape(X.shape)


def _flat(matrix: Tensor) -> Tensor:
    return matrix.reshape(-1, *matrix.shape[-2:])
