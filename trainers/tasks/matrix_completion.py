"""Matrix completion: find a low-rank matrix from a part of its entries (PolarGrad, section 6.3).

    M = U Vᵀ, entries of U, V ~ N(0, 1);   min over X, Y of  mean over observed (i, j) of  ((X Yᵀ)_ij - M_ij)²

X and Y start with entries from U(-1, 1). The batch is always the whole problem. The validation loss is the same mean
over the entries that are **not** observed, which the published experiment never looked at.

Exactly round(observed_fraction * rows * columns) entries are observed, drawn without replacement, where the paper
draws each with probability 0.3: neither split can then be empty, and losses of two data seeds weigh the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.options import TaskOptionError, check_options, option
from spectune.trainers.tasks.problems import kept
from spectune.trainers.tasks.task import TRAINING_METRICS, Batch, TaskOptions, place


class Factors(nn.Module):
    """The product of two thin matrices, `left` (rows, rank) and `right` (columns, rank)."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        super().__init__()
        self.left = nn.Parameter(left)
        self.right = nn.Parameter(right)

    def forward(self) -> Tensor:
        """Return left @ rightᵀ, shape (rows, columns)."""
        return self.left @ self.right.mT


@dataclass(frozen=True)
class MatrixCompletion(TaskOptions):
    """Complete a `rows` x `columns` matrix of rank `rank`, of which a fraction is observed."""

    rows: int = option(500, "Rows of the matrix.", at_least=1, at_most=8192)
    columns: int = option(250, "Columns of the matrix.", at_least=1, at_most=8192)
    rank: int = option(5, "Rank of the matrix and of the factors.", at_least=1, at_most=8192)
    observed_fraction: float = option(0.3, "The share of entries that is trained on.", above=0.0, below=1.0)

    name: ClassVar[str] = "matrix_completion"
    metrics: ClassVar[tuple[str, ...]] = (*TRAINING_METRICS, "validation_loss", "observed_loss")

    @property
    def items_per_step(self) -> int:
        """Observed entries."""
        return round(self.observed_fraction * self.rows * self.columns)

    @property
    def batch_is_fixed(self) -> bool:
        """The batch is always the whole problem."""
        return True

    def check(self) -> None:
        """Refuse sizes below one, a rank above the sides, and a fraction that leaves a split empty."""
        check_options(self)
        if self.rank > min(self.rows, self.columns):
            raise TaskOptionError(
                "rank", f"must be at most {min(self.rows, self.columns)}, the shorter side", self.rank
            )
        if not 0 < self.items_per_step < self.rows * self.columns:
            message = f"leaves no observed or no held-out entry of {self.rows * self.columns}"
            raise TaskOptionError("observed_fraction", message, self.observed_fraction)

    def build(self, generator: torch.Generator) -> Factors:
        """Draw both factors from U(-1, 1)."""
        left = torch.empty(self.rows, self.rank).uniform_(-1.0, 1.0, generator=generator)
        right = torch.empty(self.columns, self.rank).uniform_(-1.0, 1.0, generator=generator)
        return Factors(left, right)

    def batch(self, step: int, seed: int) -> Batch:
        """Return (M, weights of the observed entries), both (rows, columns) in fp64: the same for every step."""
        return _problem(self, seed)[0]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Weighted sum of squared errors; the weights of a split sum to one, so this is its mean."""
        target, weight = batch
        residual: Tensor = model() - target
        return (weight * residual * residual).sum()

    def measure(self, model: nn.Module, seed: int) -> dict[str, Tensor]:
        """Measure both splits at the present parameters."""
        observed, held_out = _problem(self, seed)
        return {
            "validation_loss": self.loss(model, place(held_out, model)),
            "observed_loss": self.loss(model, place(observed, model)),
        }


@kept
def _problem(task: MatrixCompletion, seed: int) -> tuple[Batch, Batch]:
    """Generate the observed and the held-out split of one data seed, in fp64."""
    generator = generator_for("matrix_completion", seed)
    left = torch.randn(task.rows, task.rank, generator=generator, dtype=torch.float64)
    right = torch.randn(task.columns, task.rank, generator=generator, dtype=torch.float64)
    order = torch.randperm(task.rows * task.columns, generator=generator)
    target = left @ right.mT
    observed, held_out = order[: task.items_per_step], order[task.items_per_step :]
    return (target, _weights(task, observed)), (target, _weights(task, held_out))


def _weights(task: MatrixCompletion, entries: Tensor) -> Tensor:
    weights = torch.zeros(task.rows * task.columns, dtype=torch.float64)
    weights[entries] = 1.0 / entries.numel()
    return weights.view(task.rows, task.columns)
