"""In-context regression by linear attention of given conditioning (arXiv 2601.13474; Zhang, Frei, Bartlett's model).

    x_i, x_q ~ N(0, Λ),  w ~ N(0, I),  y = wᵀx;    ŷ = x_qᵀ Q (1/N) Σ y_i x_i   with N pairs in the prompt

Q (d, d) is the merged key-query matrix, the value weight is fixed to one; this is a reconstruction, the paper's own
settings are not public. Λ = O diag(λ) Oᵀ, λ geometric from 1 to 1/κ. The mean of ½ (ŷ − y)² over all prompts is

    L(Q) = ½ tr[Λ (Q ΛΓ Qᵀ − Q Λ − Λ Qᵀ + I)],    Γ = (1 + 1/N) Λ + (tr Λ / N) I,    Q* = Γ⁻¹

`prompts: population` trains on L itself, `sampled` on `batch_size` fresh prompts a step. Q starts at zero, so it
commutes with Λ, and each eigenvalue moves on its own. `excess` = (L(Q) − L*) / (L(0) − L*), from
L(Q) − L* = ½ tr[Λ (Q − Q*) ΛΓ (Q − Q*)ᵀ] in fp64, without cancellation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.matrices import OneMatrix, geometric, orthonormal
from spectune.trainers.tasks.options import LARGEST_BATCH, check_options, check_together, option
from spectune.trainers.tasks.problems import kept
from spectune.trainers.tasks.task import TRAINING_METRICS, Batch, TaskOptions


@dataclass(frozen=True)
class LinearAttention(TaskOptions):
    """Learn to regress from the examples in a prompt, with inputs of condition number `condition`."""

    size: int = option(20, "d, the length of an input.", at_least=1, at_most=2048)
    examples: int = option(100, "N, the examples of a prompt.", at_least=1, at_most=65_536)
    condition: float = option(100.0, "κ, the condition number of the inputs' covariance.", at_least=1.0, at_most=1e12)
    prompts: Literal["population", "sampled"] = option(
        "population", "Whether the loss is the mean over all prompts or over fresh ones at every step."
    )
    batch_size: int = option(256, "Prompts of a step (sampled).", at_least=1, at_most=65_536)

    name: ClassVar[str] = "linear_attention"
    metrics: ClassVar[tuple[str, ...]] = (*TRAINING_METRICS, "validation_loss", "excess")

    @property
    def items_per_step(self) -> int:
        """Prompts; the population counts as one."""
        return 1 if self.prompts == "population" else self.batch_size

    @property
    def batch_is_fixed(self) -> bool:
        """The population's loss has no other batch."""
        return self.prompts == "population"

    def check(self) -> None:
        """Refuse sizes out of range, and batches that no memory holds."""
        check_options(self)
        entries = self.batch_size * (self.examples + 1) * self.size if self.prompts == "sampled" else 0
        check_together("batch_size", self.batch_size, entries, at_most=LARGEST_BATCH, words="entries of prompts")

    def build(self, generator: torch.Generator) -> OneMatrix:
        """Start at Q = 0; nothing is drawn."""
        return OneMatrix(torch.zeros(self.size, self.size))

    def batch(self, step: int, seed: int) -> Batch:
        """Return (Λ, ΛΓ), or fresh prompts as (mean of y_i x_i, x_q, y), in fp64."""
        if self.prompts == "population":
            return _problem(self, seed)[0]
        root = _problem(self, seed)[2]
        generator = generator_for("linear_attention batch", seed, step)
        shape = (self.batch_size, self.examples + 1, self.size)
        inputs = torch.randn(*shape, dtype=torch.float64, generator=generator) @ root
        weights = torch.randn(self.batch_size, self.size, 1, dtype=torch.float64, generator=generator)
        answers = inputs @ weights
        summary = (answers[:, :-1] * inputs[:, :-1]).mean(dim=1)
        return summary, inputs[:, -1], answers[:, -1, 0]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Half the mean squared error."""
        query: Tensor = model()
        if len(batch) == 2:
            covariance, product = batch
            linear = (query * (covariance @ covariance)).sum()
            return 0.5 * (query * (covariance @ query @ product)).sum() - linear + 0.5 * covariance.trace()
        summary, asked, answer = batch
        error = ((asked @ query) * summary).sum(dim=-1) - answer
        return 0.5 * (error * error).mean()

    def measure(self, model: nn.Module, seed: int) -> dict[str, Tensor]:
        """Measure the population's loss and its excess over the best, in fp64."""
        (covariance, product), solution, _ = _problem(self, seed)
        query = model().detach().to("cpu", torch.float64)
        at_zero, here = (_excess(each - solution, covariance, product) for each in (torch.zeros_like(query), query))
        smallest = 0.5 * covariance.trace() - at_zero
        return {"validation_loss": smallest + here, "excess": here / at_zero}


def _excess(distance: Tensor, covariance: Tensor, product: Tensor) -> Tensor:
    return 0.5 * (distance * (covariance @ distance @ product)).sum()


@kept
def _problem(task: LinearAttention, seed: int) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Draw the inputs' covariance: ((Λ, ΛΓ), Q*, Λ^½)."""
    values = geometric(task.size, task.condition)
    basis = orthonormal(task.size, task.size, generator_for("linear_attention", seed))
    gamma = (1.0 + 1.0 / task.examples) * values + values.sum() / task.examples

    def matrix(of: Tensor) -> Tensor:
        return (basis * of) @ basis.mT

    return (matrix(values), matrix(values * gamma)), matrix(1.0 / gamma), matrix(values.sqrt())
