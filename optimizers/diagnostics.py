"""Numbers that tell how a spectral optimizer is doing, named once for the whole project.

All take tensors [..., rows, columns] and give one number for each matrix, shape [...]. A non-finite matrix gives a
non-finite number, of its own only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spectune.optimizers.arithmetic import exact_dtype
from spectune.optimizers.polar.coefficients import CLASSIC, DEFAULT_STEPS
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.polar.solvers import Coefficients
from spectune.optimizers.rules.polargrad import nuclear_norm_along
from spectune.optimizers.stages.outliers import percentile_threshold


def orthogonality_error(direction: Tensor) -> Tensor:
    """Return ‖X Xᵀ − I‖_F / sqrt(m) on the side with m = min(rows, columns): 0 where all singular values are 1."""
    wide = _wide(direction)
    identity = torch.eye(wide.shape[-2], dtype=wide.dtype, device=wide.device)
    return _rms_per_row(wide @ wide.mT - identity)


def polar_error(direction: Tensor, matrix: Tensor) -> Tensor:
    """Return ‖X − U Vᵀ‖_F / sqrt(min(rows, columns)) against a float64 SVD of the matrix. Costs an SVD: sample it."""
    exact = polar_factor(matrix.double(), solver="svd")
    return _rms_per_row(_wide(direction.double() - exact))


def update_rms(update: Tensor) -> Tensor:
    """Return the root mean square of the entries."""
    return update.to(_accurate(update)).square().mean(dim=(-2, -1)).sqrt()


def update_spectral_norm(update: Tensor) -> Tensor:
    """Return ‖X‖₂, the largest singular value; 0 for a zero matrix. Costs the eigenvalues of X Xᵀ on the short side."""
    eigenvalues, largest = _scaled_eigenvalues(update)
    return eigenvalues.amax(dim=-1).clamp(min=0).sqrt() * largest


def newton_schulz_residual(
    matrix: Tensor, *, steps: int = DEFAULT_STEPS, coefficients: Coefficients = CLASSIC
) -> Tensor:
    """Return `orthogonality_error` after each step of the iteration on the matrix, shape [..., steps].

    Where it does not fall to zero the coefficients do not converge, as the classic ones do not. Step k is computed
    from the start, in float64 for float64 and float32 otherwise: for looking, not for training.

    Raises:
        ValueError: As `polar_factor`.
    """
    wide = matrix.to(_accurate(matrix))
    dtype = "float64" if wide.dtype == torch.float64 else "float32"
    factors = [
        polar_factor(wide, solver="newton_schulz", steps=step, coefficients=coefficients, compute_dtype=dtype)
        for step in range(1, steps + 1)
    ]
    return torch.stack([orthogonality_error(factor) for factor in factors], dim=-1)


def nuclear_norm(matrix: Tensor, direction: Tensor) -> Tensor:
    """Return ⟨matrix, direction⟩, the sum of the singular values if the direction is the polar factor."""
    return nuclear_norm_along(matrix, direction).squeeze(dim=(-2, -1))


def stable_rank(matrix: Tensor) -> Tensor:
    """Return ‖M‖_F² / ‖M‖₂², between 1 and the rank, from the eigenvalues of M Mᵀ; NaN for a zero matrix."""
    eigenvalues, largest = _scaled_eigenvalues(matrix)
    rank = eigenvalues.sum(dim=-1) / eigenvalues.amax(dim=-1)
    return rank.masked_fill(~(largest.isfinite() & (largest > 0)), torch.nan)


def clipped_fraction(matrix: Tensor, *, percentile: float | Tensor) -> Tensor:
    """Return the share of entries that `suppress_outliers` would change; 0 where the threshold is zero."""
    threshold = percentile_threshold(matrix, percentile=percentile)
    share = ((matrix.abs() > threshold) & (threshold > 0)).to(_accurate(matrix)).mean(dim=(-2, -1))
    return share.masked_fill(threshold.squeeze(dim=(-2, -1)).isnan(), torch.nan)


def outlier_ratio(matrix: Tensor, *, percentile: float | Tensor) -> Tensor:
    """Return max|V| / ε: how far the largest entry stands out. Infinite where ε is zero, and so nothing is clipped."""
    threshold = percentile_threshold(matrix, percentile=percentile).squeeze(dim=(-2, -1))
    largest: Tensor = matrix.abs().amax(dim=(-2, -1))
    return largest / threshold


def _scaled_eigenvalues(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues of X Xᵀ for X = matrix / its largest magnitude, and that; zeros where it is unusable."""
    wide = _wide(matrix)
    largest = wide.abs().amax(dim=(-2, -1), keepdim=True)
    usable = largest.isfinite() & (largest > 0)
    # eigvalsh raises for the whole batch where one matrix is not finite, hence zeros in its place.
    scaled = torch.where(usable, wide / torch.where(usable, largest, 1.0), 0.0)
    eigenvalues: Tensor = torch.linalg.eigvalsh(scaled @ scaled.mT)
    return eigenvalues, torch.where(largest.isfinite(), largest, torch.nan).squeeze(dim=(-2, -1))


def _wide(matrix: Tensor) -> Tensor:
    wide = matrix.mT if matrix.shape[-2] > matrix.shape[-1] else matrix
    return wide.to(_accurate(matrix))


def _rms_per_row(matrix: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(matrix, dim=(-2, -1))
    return norm / math.sqrt(matrix.shape[-2])


def _accurate(matrix: Tensor) -> torch.dtype:
    return exact_dtype(torch.promote_types(matrix.dtype, torch.float32), matrix.device)
