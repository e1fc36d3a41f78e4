"""What a task is, and how one is made from the options a user wrote.

A task is a frozen dataclass of options (plain JSON values) with the methods of `Task`. It holds no data and no model:
everything random comes from a generator or a seed it is handed, so equal arguments give equal results anywhere.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from trainers.options import OptionError, unknown

Batch = tuple[Tensor, ...]

TRAINING_METRICS = ("loss", "lr", "step_time_seconds", "throughput", "optimizer_share", "timing_valid")
"""What every report holds beside the task's own evaluation."""


class TaskOptionError(OptionError):
    """An option of a task that cannot be used."""


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
        """Give the training batch of a step: a pure function of (seed, step); see `place` for dtype and device."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Give the scalar loss: a pure function of the parameters and the batch."""

    def evaluate(self, model: nn.Module, seed: int) -> dict[str, float]:
        """Measure the model on what it was not trained on; `seed` is the data's."""


def place(batch: Batch, model: nn.Module) -> Batch:
    """Move a batch to the model's device, and its floating-point tensors to the model's dtype."""
    like = next(model.parameters())
    return tuple(part.to(like.device, like.dtype if part.is_floating_point() else part.dtype) for part in batch)


def from_options(task_type: type[Task], options: Mapping[str, Any]) -> Task:
    """Make a task from what a user wrote, checking names and types (`check` does the rest).

    Raises:
        TaskOptionError: An option is unknown or of another type than the task declares.
    """
    declared = _declared_options(task_type)
    for option, value in options.items():
        if option not in declared:
            raise TaskOptionError(option, unknown(f"option of {task_type.name}", option, declared), value)
        _check_type(option, declared[option], value)
    as_declared = {o: float(v) if declared[o] is float else v for o, v in options.items()}
    return task_type(**as_declared)


def check_types(task: Any) -> None:
    """Refuse a task whose fields hold something else than they declare.

    Raises:
        TaskOptionError: Naming the first such option.
    """
    for option, declared in _declared_options(type(task)).items():
        _check_type(option, declared, getattr(task, option))


def check_at_least(task: Any, minimum: int, options: tuple[str, ...]) -> None:
    """Refuse a task with one of these options below its minimum.

    Raises:
        TaskOptionError: Naming the first such option.
    """
    for option in options:
        value = getattr(task, option)
        if value < minimum:
            raise TaskOptionError(option, f"must be at least {minimum}", value)


def _declared_options(task_type: type) -> dict[str, Any]:
    hints = get_type_hints(task_type)
    return {field.name: hints[field.name] for field in dataclasses.fields(task_type)}


def _check_type(option: str, declared: Any, value: Any) -> None:
    message = _problem(declared, value)
    if message is not None:
        raise TaskOptionError(option, message, value)


def _problem(declared: Any, value: Any) -> str | None:
    """Say why a value is not of the declared type; types other than JSON's plain ones are the task's own business."""
    if get_origin(declared) in (Union, types.UnionType):
        problems = [_problem(member, value) for member in get_args(declared)]
        return None if None in problems else " or ".join(p for p in problems if p)
    if get_origin(declared) is Literal:
        choices = get_args(declared)
        return None if value in choices else unknown("choice", str(value), map(str, choices))
    if declared is float and isinstance(value, float) and not math.isfinite(value):
        return "must be finite"
    words = _WORDS.get(declared)
    if words is None or type(value) is declared or (declared is float and type(value) is int):
        return None
    return f"must be {words}"


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    types.NoneType: "null",
}
