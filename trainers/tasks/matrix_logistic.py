"""Matrix logistic regression: convex, with gradients from batches (PolarGrad, section 6.2).

    min over X of  f(X) = Σ softplus(−C ⊙ (A X B)),    entries of A, B ~ N(0, 1),  C_ij = +1 where N(0, 1) > ½, else −1

Every step draws its rows of A and C with replacement, and its loss is their sum, not their mean, as in the paper.
The labels are noise, so there is nothing to hold out: `validation_loss` is the mean over all entries of all rows, which
no single batch sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.matrices import OneMatrix, uniform
from spectune.trainers.tasks.options import LARGEST_BATCH, check_options, check_together, option
from spectune.trainers.tasks.problems import kept
from spectune.trainers.tasks.task import Batch, TaskOptions, place


@dataclass(frozen=True)
class MatrixLogistic(TaskOptions):
    """Find the `rows` x `columns` matrix that separates random labels best."""

    rows: int = option(1000, "Rows of X.", at_least=1, at_most=8192)
    columns: int = option(100, "Columns of X.", at_least=1, at_most=8192)
    samples: int = option(10_000, "Rows of A.", at_least=1, at_most=65_536)
    outputs: int = option(400, "Columns of B.", at_least=1, at_most=8192)
    batch_size: int = option(1000, "Rows of A in a step, drawn with replacement.", at_least=1, at_most=65_536)

    name: ClassVar[str] = "matrix_logistic"

    def check(self) -> None:
        """Refuse sizes out of range, and data that no memory holds."""
        check_options(self)
        entries = max(self.samples, self.batch_size) * max(self.rows, self.outputs)
        check_together("samples", self.samples, entries, at_most=LARGEST_BATCH, words="entries of A or C")

    @property
    def items_per_step(self) -> int:
        """Rows of A."""
        return self.batch_size

    def build(self, generator: torch.Generator) -> OneMatrix:
        """Draw X from U(-1, 1)."""
        return OneMatrix(uniform(self.rows, self.columns, generator))

    def batch(self, step: int, seed: int) -> Batch:
        """Return (rows of A, B, rows of C) in fp32."""
        left, right, labels = _problem(self, seed)
        generator = generator_for("matrix_logistic batch", seed, step)
        chosen = torch.randint(self.samples, (self.batch_size,), generator=generator)
        return left[chosen], right, labels[chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum over the entries."""
        left, right, labels = batch
        return functional.softplus(-labels * (left @ model() @ right)).sum()

    def measure(self, model: nn.Module, seed: int) -> dict[str, Tensor]:
        """Measure the mean over all rows and entries."""
        left, right, labels = _problem(self, seed)
        parts = zip(torch.split(left, self.batch_size), torch.split(labels, self.batch_size), strict=True)
        sums = [self.loss(model, place((rows, right, of_rows), model)).double() for rows, of_rows in parts]
        return {"validation_loss": torch.stack(sums).sum() / labels.numel()}


@kept
def _problem(task: MatrixLogistic, seed: int) -> Batch:
    generator = generator_for("matrix_logistic", seed)
    left = torch.randn(task.samples, task.rows, generator=generator)
    right = torch.randn(task.columns, task.outputs, generator=generator)
    labels = torch.randn(task.samples, task.outputs, generator=generator)
    return left, right, torch.where(labels > 0.5, 1.0, -1.0)
