"""By what a matrix is divided before it is iterated: a bound of σ₁ that costs one pass over it.

Frobenius     ‖G‖_F = (Σ σ²)^½, 1 to √r times σ₁
Schatten-8    (Σ σ⁸)^⅛, 1 to r^⅛ times σ₁, from a square of X Xᵀ that the first step forms anyway
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectune.optimizers.scratch import may_keep


def normalised(matrix: Tensor, *, eps: float | Tensor, safety: float, out: Tensor | None = None) -> Tensor:
    """Divide each matrix by safety · max(‖G‖_F, eps); 1e-30 and 1e30 survive. `out` is memory for it.

    The detour through a power of two near the largest entry changes no digit of a matrix that did not need it, so
    leaving it out where no matrix of the batch does keeps every matrix independent of the others, bit for bit.
    """
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    norm = torch.linalg.vector_norm(wide, dim=(-2, -1), keepdim=True)
    if squares_survived(norm) and not isinstance(eps, Tensor):
        return torch.div(wide, norm.clamp(min=eps) * safety, out=out)
    shrunk, scale, norm = _shrunk(wide)
    smallest = eps if isinstance(eps, Tensor) else torch.full_like(scale, eps)  # `eps / scale` takes 1 / scale first
    norm = torch.maximum(norm, smallest / scale)
    return shrunk / (safety * torch.where(norm == 0, 1.0, norm))


def unit(matrix: Tensor, *, eps: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return G / ‖G‖_F, and max(1, eps / ‖G‖_F), by which a later normalisation is to fall short."""
    shrunk, scale, norm = _shrunk(matrix.to(torch.promote_types(matrix.dtype, torch.float32)))
    norm = torch.where(norm == 0, 1.0, norm)
    smallest = eps if isinstance(eps, Tensor) else torch.full_like(scale, eps)
    return shrunk / norm, (smallest / scale / norm).clamp_min(1.0)


def squares_survived(norm: Tensor) -> bool:
    """Return whether norms of float32 can be trusted; on a device, where asking would wait for it, nothing is known."""
    if not may_keep(norm) or norm.numel() == 0:  # under a mode there may be no values to read
        return False
    return all(1e-12 < value < 1e12 for value in norm.flatten().tolist())  # NaN passes neither comparison


def schatten_8(square: Tensor) -> Tensor:
    """Return (Σ σ⁸)^⅛, at least σ₁, from (X Xᵀ)²; [..., 1, 1], at least float32, 1 for zero."""
    dtype = torch.promote_types(square.dtype, torch.float32)
    bound: Tensor = torch.linalg.vector_norm(square, dim=(-2, -1), keepdim=True, dtype=dtype).sqrt().sqrt()
    return torch.where(bound == 0, 1.0, bound)


def _shrunk(wide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return G / p, the power of two p near max|G| (1 for zero), and the norm of the former."""
    largest = wide.abs().amax(dim=(-2, -1), keepdim=True)
    scale = torch.where(largest.isfinite() & (largest > 0), largest / (2 * largest.frexp().mantissa), 1.0)
    shrunk = wide / scale
    return shrunk, scale, torch.linalg.vector_norm(shrunk, dim=(-2, -1), keepdim=True)
