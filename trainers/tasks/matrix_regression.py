"""Matrix quadratic regression: strongly convex, ill-conditioned (PolarGrad, section 6.1).

    min over X of  f(X) = ½ ‖A X B − C‖_F²,    entries of A, B, C ~ N(0, 1),  X starts at U(−1, 1)

f* is that of X* = A⁺ C B⁺, by least squares in fp64. The residual at X* is orthogonal to all A X B, so the gap is

    f(X) − f* = ½ ‖A (X − X*) B‖_F²

which is how it is measured: in fp64 and without cancellation, down to nothing. C is noise, so there is nothing that one
could hold out; `validation_loss` is f itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.matrices import OneMatrix, uniform
from spectune.trainers.tasks.options import LARGEST_BATCH, TaskOptionError, check_options, check_together, option
from spectune.trainers.tasks.problems import kept
from spectune.trainers.tasks.task import TRAINING_METRICS, Batch, TaskOptions


@dataclass(frozen=True)
class MatrixRegression(TaskOptions):
    """Find the `rows` x `columns` matrix between two given ones that comes nearest to a third."""

    rows: int = option(500, "Rows of X.", at_least=1, at_most=8192)
    columns: int = option(100, "Columns of X.", at_least=1, at_most=8192)
    samples: int = option(1000, "Rows of A, at least those of X.", at_least=1, at_most=65_536)
    outputs: int = option(250, "Columns of B, at least those of X.", at_least=1, at_most=65_536)

    name: ClassVar[str] = "matrix_regression"
    metrics: ClassVar[tuple[str, ...]] = (*TRAINING_METRICS, "validation_loss", "gap")

    @property
    def items_per_step(self) -> int:
        """Entries of C."""
        return self.samples * self.outputs

    @property
    def batch_is_fixed(self) -> bool:
        """The batch is always the whole problem."""
        return True

    def check(self) -> None:
        """Refuse sizes out of range, and too few equations for one solution."""
        check_options(self)
        entries = self.samples * max(self.rows, self.outputs)
        check_together("samples", self.samples, entries, at_most=LARGEST_BATCH, words="entries of A or C")
        if self.samples < self.rows:
            raise TaskOptionError("samples", f"must be at least {self.rows}, the rows", self.samples)
        if self.outputs < self.columns:
            raise TaskOptionError("outputs", f"must be at least {self.columns}, the columns", self.outputs)

    def build(self, generator: torch.Generator) -> OneMatrix:
        """Draw X from U(-1, 1)."""
        return OneMatrix(uniform(self.rows, self.columns, generator))

    def batch(self, step: int, seed: int) -> Batch:
        """Return (A, B, C) in fp64: the same for every step."""
        return _problem(self, seed)[0]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Half the squared error."""
        left, right, target = batch
        residual = left @ model() @ right - target
        half: Tensor = 0.5 * (residual * residual).sum()
        return half

    def measure(self, model: nn.Module, seed: int) -> dict[str, Tensor]:
        """Measure f and f - f* at the present X, in fp64."""
        (left, right, _), solution, smallest = _problem(self, seed)
        distance = model().detach().to("cpu", torch.float64) - solution
        gap = 0.5 * (left @ distance @ right).square().sum()
        return {"validation_loss": smallest + gap, "gap": gap}


@kept
def _problem(task: MatrixRegression, seed: int) -> tuple[Batch, Tensor, float]:
    """Generate (A, B, C) and solve: the batch, X* and f*."""
    generator = generator_for("matrix_regression", seed)
    sizes = ((task.samples, task.rows), (task.columns, task.outputs), (task.samples, task.outputs))
    left, right, target = (torch.randn(*size, dtype=torch.float64, generator=generator) for size in sizes)
    halfway = torch.linalg.lstsq(left, target).solution
    solution = torch.linalg.lstsq(right.mT, halfway.mT).solution.mT
    smallest = 0.5 * (left @ solution @ right - target).square().sum().item()
    return (left, right, target), solution, smallest
