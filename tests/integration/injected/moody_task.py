"""A task that measures wrongly once, when a file tells it to: `forgets` the objective, or `is_nan`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from spectune.trainers.tasks import TaskOptions, option


@dataclass(frozen=True)
class Moody(TaskOptions):
    """A matrix is led to the identity."""

    size: int = option(8, "Rows and columns.", at_least=2, at_most=64)

    name: ClassVar[str] = "moody"

    def build(self, generator: torch.Generator) -> nn.Module:
        """Start anywhere."""
        start = nn.Linear(self.size, self.size, bias=False)
        start.weight.data.normal_(generator=generator)
        return start

    def batch(self, step: int, seed: int) -> tuple[Tensor, ...]:
        """Return a goal near the identity."""
        generator = torch.Generator().manual_seed(1000 * seed + step)
        return (torch.eye(self.size) + 0.01 * torch.randn(self.size, self.size, generator=generator),)

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Measure the square of the distance."""
        return ((model.weight - batch[0]) ** 2).mean()

    def evaluate(self, model: nn.Module, seed: int) -> dict[str, float]:
        """Measure the distance to the identity itself, or what the file says."""
        if _taken("forgets"):
            return {}
        if _taken("is_nan"):
            return {"validation_loss": math.nan}
        return {"validation_loss": self.loss(model, (torch.eye(self.size),)).item()}


def _taken(mood: str) -> bool:
    """Take a mood's file away; of several processes one gets it."""
    try:
        Path(os.environ["INJECTED"], mood).unlink()
    except (FileNotFoundError, KeyError):
        return False
    return True
