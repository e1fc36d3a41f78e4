"""What the matrix problems share: a model that is one matrix, and matrices to draw."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OneMatrix(nn.Module):
    """A matrix to be found, `weight` (rows, columns)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self) -> Tensor:
        """Return the matrix."""
        return self.weight


def uniform(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Draw entries from U(-1, 1), fp32: where PolarGrad's experiments start."""
    return torch.empty(rows, columns).uniform_(-1.0, 1.0, generator=generator)


def orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Draw `columns` orthonormal vectors of length `rows`, uniformly, fp64."""
    gaussian = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    vectors, triangle = torch.linalg.qr(gaussian)
    signed: Tensor = vectors * triangle.diagonal().sign()
    return signed


def geometric(count: int, condition: float) -> Tensor:
    """Return `count` numbers from 1 down to 1 / condition, equally spaced on a log scale, fp64; a single one is 1."""
    return torch.tensor(condition, dtype=torch.float64) ** -torch.linspace(0.0, 1.0, count, dtype=torch.float64)
