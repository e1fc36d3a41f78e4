"""What one trial is: everything that decides its numbers, and the device it runs on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch

from spectune.trainers.checkpoints import CheckpointError
from spectune.trainers.options import OptionError, unknown
from spectune.trainers.schedules import Schedule
from spectune.trainers.tasks.task import Task

PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}
"""The dtype of the weights; bf16 keeps them in fp32 and computes losses under autocast."""


NAMED_SINCE: Final = ("compute_dtype", "adamw_lr_ratio", "decay_vectors", "l0")
"""Hyperparameters that campaigns did not name at first; a state that lacks one was trained with what they name now."""


@dataclass(frozen=True)
class TrialSetting:
    """One trial: a task, an optimizer with its hyperparameters, a schedule, and the seeds.

    Attributes:
        task: What is trained.
        optimizer: A key of `spectune.optimizers.OPTIMIZERS`.
        hyperparameters: Keyword arguments of `spectune.optimizers.build_optimizer`.
        schedule: What each parameter group's initial lr is multiplied with, step by step.
        steps: The trial's whole length, which the schedule is stretched over.
        seed: The model's initialisation.
        data_seed: The task's data and the order of its batches.
        precision: A key of `PRECISIONS`.
        device: As torch writes it; no part of the trial's identity.

    Raises:
        OptionError: `steps` or `precision` is impossible.
    """

    task: Task
    optimizer: str
    hyperparameters: Mapping[str, Any]
    schedule: Schedule
    steps: int
    seed: int
    data_seed: int
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError("steps", "must be at least 1", self.steps)
        if self.precision not in PRECISIONS:
            raise OptionError("precision", unknown("precision", self.precision, PRECISIONS), self.precision)

    def refuse_other(self, identity: Mapping[str, Any]) -> None:
        """Refuse the identity of another trial.

        Raises:
            CheckpointError: Naming the first thing in which they differ.
        """
        for key, mine in self.identity().items():
            theirs = identity.get(key)
            if key == "hyperparameters" and isinstance(theirs, Mapping):
                theirs = {**{name: mine[name] for name in NAMED_SINCE if name in mine}, **theirs}
            if theirs != mine:
                raise CheckpointError(
                    f"the state has another {key} than this trial's {mine!r}: got {identity.get(key)!r}"
                )

    def identity(self) -> dict[str, Any]:
        """Return what a checkpoint must agree on to continue this trial, as plain values."""
        return {
            "task": self.task.name,
            "options": dataclasses.asdict(self.task),  # type: ignore[call-overload]  # a Protocol cannot ask for a dataclass
            "optimizer": self.optimizer,
            "hyperparameters": dict(self.hyperparameters),
            "schedule": dataclasses.asdict(self.schedule),
            "steps": self.steps,
            "seed": self.seed,
            "data_seed": self.data_seed,
            "precision": self.precision,
        }
