"""Matrix factorisation of given conditioning: where simplified Muon's rate does not see κ (arXiv 2601.13474).

    min over U, V of  f(U, V) = ½ ‖U Vᵀ − M‖_F²,    M = P diag(σ) Qᵀ,  σ_i geometric from 1 to 1/κ,  PᵀP = QᵀQ = I

Random start: entries α N(0, 1). Aligned start: U = α P, V = α Q, from where all singular bases stay put and everything
decouples into scalars (a reconstruction; the paper's own settings are not public).

Small modes carry no weight in the Frobenius norm, so beside `relative_error` = ‖U Vᵀ − M‖ / ‖M‖ there is `mode_error` =
max_i |p_iᵀ U Vᵀ q_i / σ_i − 1|, to compare across κ. The problem depends on `problem_seed` alone, not on the seed of
the data: the aligned start has to know it. With κ = 1 the bases are arbitrary, and spectral steps from a random start
never align them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.matrices import geometric, orthonormal
from spectune.trainers.tasks.matrix_completion import Factors
from spectune.trainers.tasks.options import TaskOptionError, check_options, option
from spectune.trainers.tasks.problems import kept
from spectune.trainers.tasks.task import TRAINING_METRICS, Batch, TaskOptions


@dataclass(frozen=True)
class MatrixFactorization(TaskOptions):
    """Factor a `size` x `size` matrix of rank `rank` and condition number `condition`."""

    size: int = option(60, "Rows and columns of M.", at_least=1, at_most=8192)
    rank: int = option(5, "Rank of M and of the factors.", at_least=1, at_most=8192)
    condition: float = option(
        100.0, "κ, the ratio of M's largest to its smallest singular value.", at_least=1.0, at_most=1e12
    )
    start: Literal["aligned", "random"] = option("random", "Whether the factors start along M's singular vectors.")
    start_scale: float = option(1e-3, "α, the size of the start.", above=0.0, at_most=1e3)
    problem_seed: int = option(0, "Which M.", at_least=0, at_most=2**31)

    name: ClassVar[str] = "matrix_factorization"
    metrics: ClassVar[tuple[str, ...]] = (*TRAINING_METRICS, "validation_loss", "relative_error", "mode_error")

    @property
    def items_per_step(self) -> int:
        """Entries of M."""
        return self.size * self.size

    @property
    def batch_is_fixed(self) -> bool:
        """The batch is always the whole problem."""
        return True

    def check(self) -> None:
        """Refuse sizes out of range and a rank above the size."""
        check_options(self)
        if self.rank > self.size:
            raise TaskOptionError("rank", f"must be at most {self.size}, the size", self.rank)

    def build(self, generator: torch.Generator) -> Factors:
        """Make both factors: along M's singular vectors, or from the generator."""
        if self.start == "aligned":
            _, (left, _, right) = _problem(self)
            return Factors((self.start_scale * left).float(), (self.start_scale * right).float())
        drawn = [torch.randn(self.size, self.rank, generator=generator) for _ in range(2)]
        return Factors(self.start_scale * drawn[0], self.start_scale * drawn[1])

    def batch(self, step: int, seed: int) -> Batch:
        """Return (M,) in fp64: the same for every step and seed."""
        return _problem(self)[0]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Half the squared error."""
        residual: Tensor = model() - batch[0]
        half: Tensor = 0.5 * (residual * residual).sum()
        return half

    def measure(self, model: nn.Module, seed: int) -> dict[str, Tensor]:
        """Measure the error in fp64, as a whole and mode by mode."""
        (target,), (left, values, right) = _problem(self)
        product = model().detach().to("cpu", torch.float64)
        residual = product - target
        modes = (left * (product @ right)).sum(dim=0) / values
        return {
            "validation_loss": 0.5 * residual.square().sum(),
            "relative_error": residual.norm() / target.norm(),
            "mode_error": (modes - 1.0).abs().amax(),
        }


@kept
def _problem(task: MatrixFactorization) -> tuple[tuple[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Draw M and its parts: ((M,), (P, σ, Q))."""
    generator = generator_for("matrix_factorization", task.problem_seed)
    left, right = (orthonormal(task.size, task.rank, generator) for _ in range(2))
    values = geometric(task.rank, task.condition)
    return ((left * values) @ right.mT,), (left, values, right)
