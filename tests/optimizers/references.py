"""Slow, obvious float64 references, and the check that a matrix is a polar factor."""

from __future__ import annotations

import torch
from torch import Tensor

SHAPES = [(6, 6), (7, 4), (4, 7), (1, 5), (5, 1), (1, 1), (32, 8), (9, 64)]


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def orthogonal(size: int, *, seed: int) -> Tensor:
    return torch.linalg.qr(gaussian(size, size, seed=seed)).Q


def decaying(rows: int, columns: int, *, power: float, seed: int = 0) -> Tensor:
    """A matrix with singular values 1, 2^-power, 3^-power, …"""
    fewer = min(rows, columns)
    sigma = torch.arange(1.0, fewer + 1, dtype=torch.float64) ** -power
    return orthogonal(rows, seed=seed)[:, :fewer] @ torch.diag(sigma) @ orthogonal(columns, seed=seed + 1)[:fewer]


def polar_reference(matrix: Tensor) -> Tensor:
    U, sigma, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return U @ torch.diag((sigma > 1e-12 * sigma[0]).double()) @ Vh


def newton_schulz_reference(
    matrix: Tensor, triples: list[tuple[float, float, float]], divisor: float = 1.0, schatten: int = 2
) -> Tensor:
    """Map the singular values by hand."""
    U, sigma, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = sigma / (sigma / sigma[0]).pow(schatten).sum().pow(1 / schatten) / sigma[0] / divisor
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return U @ torch.diag(s) @ Vh


def quantile_reference(matrix: Tensor, percentile: float) -> float:
    return float(torch.quantile(matrix.double().abs().flatten(), percentile))


def polar_problems(factor: Tensor, matrix: Tensor, *, tolerance: float) -> list[str]:
    """Return what speaks against `factor` being the polar factor of a full-rank `matrix`; empty where nothing does."""
    X, G = factor.double(), matrix.double()
    if X.shape[0] < X.shape[1]:
        X, G = X.mT, G.mT
    if not X.isfinite().all():
        return ["not finite"]
    H = X.mT @ G
    problems = {
        "not orthogonal": (X.mT @ X - torch.eye(X.shape[1], dtype=torch.float64)).abs().max(),
        "does not reconstruct": (X @ H - G).abs().max() / G.abs().max(),
        "H not symmetric": (H - H.mT).abs().max() / G.norm(),
        "H not positive": -torch.linalg.eigvalsh((H + H.mT) / 2).min() / G.norm(),
    }
    return [name for name, error in problems.items() if not error <= tolerance]
