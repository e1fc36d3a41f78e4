"""Step timing: how long a training step takes and which part of it is the optimizer's.

On a CPU every step is split. On an accelerator, work is queued and splitting it means waiting for it, so only every
`SAMPLE_EVERY`-th step is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

SAMPLE_EVERY = 16


@dataclass
class StepTimes:
    """Seconds since the last report."""

    seconds: float = 0.0
    steps: int = 0
    sampled_seconds: float = 0.0
    sampled_optimizer_seconds: float = 0.0

    def metrics(self, items_per_step: float) -> dict[str, float]:
        """Return the metrics of these steps; those that nothing was measured for are left out."""
        metrics = {}
        if self.steps and self.seconds:
            metrics["step_time_seconds"] = self.seconds / self.steps
            metrics["throughput"] = items_per_step * self.steps / self.seconds
        if self.sampled_seconds:
            metrics["optimizer_share"] = self.sampled_optimizer_seconds / self.sampled_seconds
        return metrics


class StepTimer:
    """Measures steps; `times` is what it has measured since it was last set."""

    def __init__(self, device: torch.device, clock: Callable[[], float]) -> None:
        self.times = StepTimes()
        self._device = device
        self._clock = clock
        self._samples = False

    def start_step(self, step: int) -> float:
        """Begin a step, and decide whether it is split."""
        self._samples = self._device.type == "cpu" or step % SAMPLE_EVERY == 0
        return self._now()

    def start_optimizer(self) -> float:
        """Begin the optimizer's part of a step."""
        return self._now()

    def end_step(self, started: float, optimizer_started: float) -> None:
        """End a step."""
        if self._samples:
            ended = self._now()
            self.times.sampled_seconds += ended - started
            self.times.sampled_optimizer_seconds += ended - optimizer_started

    def add_stretch(self, seconds: float, steps: int) -> None:
        """Count steps taken one after the other, of which the last has been waited for."""
        self.times.seconds += seconds
        self.times.steps += steps

    def _now(self) -> float:
        if self._samples and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()
