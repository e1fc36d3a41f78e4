"""A task of one's own: `task: {name: "own_task:Rosenbrock", size: 8, steps: 200}`, with this folder on PYTHONPATH."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spectune.trainers.tasks import TaskOptions, option


@dataclass(frozen=True)
class Rosenbrock(TaskOptions):
    """Rosenbrock's valley, along the rows of a matrix."""

    size: int = option(8, "Rows and columns.", at_least=2, at_most=1024)

    name: ClassVar[str] = "rosenbrock"

    def build(self, generator: torch.Generator) -> nn.Module:
        """Start anywhere near zero."""
        start = nn.Linear(self.size, self.size, bias=False)
        start.weight.data.normal_(0.0, 0.1, generator=generator)
        return start

    def batch(self, step: int, seed: int) -> tuple[Tensor, ...]:
        """Give a point of the valley's floor, moved a little at each step."""
        return (1.0 + 0.01 * torch.randn(1, generator=torch.Generator().manual_seed(1000 * seed + step)),)

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Climb out of the valley, or along it."""
        here, following = model.weight[:, :-1], model.weight[:, 1:]
        return (100.0 * (following - here**2) ** 2 + (batch[0] - here) ** 2).mean()

    def evaluate(self, model: nn.Module, seed: int) -> dict[str, float]:
        """Measure the height above the floor's lowest point."""
        return {"validation_loss": self.loss(model, (torch.ones(()),)).item()}
