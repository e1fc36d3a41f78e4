"""The polar factor by the singular value decomposition G = U Σ Vᵀ: what the other solvers are held against."""

from __future__ import annotations

import torch
from torch import Tensor

from spectune.optimizers.arithmetic import exact_dtype


def by_svd(matrix: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Return the compact polar factor of each matrix of [..., rows, columns], in its shape and dtype.

    Args:
        matrix: Real floating point.
        dtype: float32 or float64, of the decomposition.

    Returns:
        U Vᵀ over the singular values above max(rows, columns) · eps(dtype) · σ₁, so zero for zero; NaN where a matrix
        is not finite.
    """
    wide = matrix.to(dtype)
    largest = wide.abs().amax(dim=(-2, -1), keepdim=True)
    finite = largest.isfinite()
    scale = torch.where(finite & (largest > 0), largest, 1.0)
    # LAPACK raises for the whole batch where one matrix is not finite, hence zeros in its place.
    U, sigma, Vh = torch.linalg.svd(torch.where(finite, wide / scale, 0.0), full_matrices=False)
    negligible = max(matrix.shape[-2:]) * torch.finfo(wide.dtype).eps * sigma[..., :1]
    exact = exact_dtype(dtype, matrix.device)
    result = (U * (sigma > negligible).unsqueeze(-2)).to(exact) @ Vh.to(exact)
    return torch.where(finite, result, torch.nan).to(matrix.dtype)
