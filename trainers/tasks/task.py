"""What a task is, and how one is made from the options a user wrote.

A task is a frozen dataclass of options (plain JSON values) with the methods of `Task`. It holds no data and no model:
everything random comes from a generator or a seed it is handed, so equal arguments give equal results anywhere. A field
declared by `option` says its sentence and its bounds once; `check_options` keeps them and `schema` shows them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self, cast

import torch
from torch import Tensor, nn

from spectune.trainers.gradient_noise import GradientNoise
from spectune.trainers.options import unknown
from spectune.trainers.tasks.options import TaskOptionError, check_options, check_type, declared_options, option
from spectune.trainers.user_code import UserCodeError, checked_number

Batch = tuple[Tensor, ...]

TRAINING_METRICS = ("loss", "lr", "step_time_seconds", "throughput", "optimizer_share", "timing_valid")
"""What every report holds beside the task's own evaluation."""


class Task(Protocol):
    """What is trained: a model, its data, its loss and its evaluation."""

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    """Everything a report holds: `TRAINING_METRICS` and what `evaluate` gives."""

    @property
    def items_per_step(self) -> int:
        """What throughput counts: bytes, rows or entries in one training step."""

    def check(self) -> None:
        """Refuse options that cannot work, without heavy work.

        Raises:
            TaskOptionError: Naming the option.
        """

    def build(self, generator: torch.Generator) -> nn.Module:
        """Make the model in fp32 on the CPU, drawing every number from `generator`."""

    def batch(self, step: int, seed: int) -> Batch:
        """Return the training batch of a step: a pure function of (seed, step); see `place` for dtype and device."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the scalar loss: a pure function of the parameters and the batch."""

    def evaluate(self, model: nn.Module, seed: int) -> dict[str, float]:
        """Measure the model on what it was not trained on; `seed` is the data's."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options that every task has, and what most tasks answer alike: a base to inherit from, not a duty."""

    gradient_noise: Literal["none", "student_t", "spikes"] = option(
        "none", "Noise that is added to every gradient, as outliers in the data would."
    )
    gradient_noise_amount: float = option(
        1.0, "The noise's size in units of the gradient's root mean square.", at_least=0.0, at_most=1e6
    )
    gradient_noise_rate: float = option(
        0.001, "The share of entries that a spike hits (spikes).", at_least=0.0, at_most=1.0
    )
    gradient_noise_degrees_of_freedom: float = option(
        3.0, "How light the tails are (student_t); 1 is Cauchy's distribution.", at_least=1.0, at_most=1e6
    )

    metrics: ClassVar[tuple[str, ...]] = (*TRAINING_METRICS, "validation_loss")

    @property
    def items_per_step(self) -> int:
        """One thing per step."""
        return 1

    @property
    def batch_is_fixed(self) -> bool:
        """Whether `batch` gives one and the same batch for every step of a seed, so that asking once is enough."""
        return False

    @property
    def noise(self) -> GradientNoise | None:
        """What disturbs the gradients."""
        if self.gradient_noise == "none":
            return None
        return GradientNoise(
            self.gradient_noise,
            self.gradient_noise_amount,
            self.gradient_noise_rate,
            self.gradient_noise_degrees_of_freedom,
        )

    def check(self) -> None:
        """Refuse options of another type or out of their range."""
        check_options(self)

    def evaluate(self, model: nn.Module, seed: int) -> dict[str, float]:
        """Measure the model on what it was not trained on; `seed` is the data's."""
        measured = self.measure(model, seed)
        # Whatever is no scalar is left for the engine, which names it with its step.
        return {name: value.item() if _is_scalar(value) else cast(Any, value) for name, value in measured.items()}

    def measure(self, model: nn.Module, seed: int) -> dict[str, Tensor]:
        """Evaluate without leaving tensors, so that trials in one stack are measured in one call.

        A task that cannot leaves this as it is and says what `evaluate` does itself.
        """
        raise NotImplementedError(f"{type(self).__name__} has no measure")

    def pinned(self) -> Self:
        """Return the task with what its files hold now written into its options; the same task where it reads none."""
        return self


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and not value.ndim and not value.is_complex()


def items_per_step(task: Task) -> float:
    """Return how many items a step of a task trains on, which a user's code says.

    Raises:
        UserCodeError: It is no finite number.
    """
    source = f"{type(task).__name__}.items_per_step"
    number = checked_number(task.items_per_step, source=source)
    if not math.isfinite(number):
        raise UserCodeError(f"{source} must be finite, is {number}")
    return number


def batch_is_fixed(task: object) -> bool:
    """Return whether all steps of a data seed have the same batch; a task that does not say so is asked each step."""
    return bool(getattr(task, "batch_is_fixed", False))


def place(batch: Batch, model: nn.Module) -> Batch:
    """Move a batch to the model's device, and its floating-point tensors to the model's dtype."""
    like = next(model.parameters())
    return tuple(part.to(like.device, like.dtype if part.is_floating_point() else part.dtype) for part in batch)


def from_options(task_type: type[Task], options: Mapping[str, Any]) -> Task:
    """Make a task from what a user wrote, checking names and types (`check` does the rest).

    Raises:
        TaskOptionError: An option is unknown or of another type than the task declares.
    """
    declared = declared_options(task_type)
    for name, value in options.items():
        if name not in declared:
            raise TaskOptionError(name, unknown(f"option of {task_type.name}", name, declared), value)
        check_type(name, declared[name], value)
    as_declared = {n: float(v) if declared[n] is float else v for n, v in options.items()}
    return task_type(**as_declared)
