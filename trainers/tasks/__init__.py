"""Tasks: what is trained. One file each; a new one is added to `TASKS`, a user's own is named `module:Class`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spectune.trainers.options import unknown
from spectune.trainers.tasks.language_model import LanguageModel
from spectune.trainers.tasks.linear_attention import LinearAttention
from spectune.trainers.tasks.matrix_completion import MatrixCompletion
from spectune.trainers.tasks.matrix_factorization import MatrixFactorization
from spectune.trainers.tasks.matrix_logistic import MatrixLogistic
from spectune.trainers.tasks.matrix_regression import MatrixRegression
from spectune.trainers.tasks.options import TaskOptionError, option, schema
from spectune.trainers.tasks.own import is_user_task, own_task_type
from spectune.trainers.tasks.presets import PRESETS, presets_of
from spectune.trainers.tasks.task import Task, TaskOptions, from_options
from spectune.trainers.tasks.vision_transformer import VisionTransformer

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        MatrixRegression,
        MatrixLogistic,
        MatrixCompletion,
        MatrixFactorization,
        LinearAttention,
        LanguageModel,
        VisionTransformer,
    )
}


def task_type(name: str) -> type[Task]:
    """Return the class of a task: one of `TASKS`, or a user's own.

    Raises:
        TaskOptionError: There is no such task, or the class is not one.
    """
    if is_user_task(name):
        return own_task_type(name)
    if name not in TASKS:
        raise TaskOptionError("name", unknown("task", str(name), TASKS), name)
    return TASKS[name]


def task_from_options(name: str, options: Mapping[str, Any]) -> Task:
    """Make a task from its name and the options a user wrote, `preset` among them.

    Raises:
        TaskOptionError: The name, the preset or an option is unknown, or an option has the wrong type.
    """
    kind, given = task_type(name), dict(options)
    preset = given.pop("preset", None)
    return from_options(kind, {**_preset_options(name, preset), **given})


def task_schema(name: str) -> dict[str, Any]:
    """Write a task's options as JSON Schema.

    Raises:
        TaskOptionError: There is no such task.
    """
    return schema(task_type(name), presets_of(name))


def _preset_options(task: str, preset: object) -> Mapping[str, Any]:
    if preset is None:
        return {}
    mine = presets_of(task)
    if not isinstance(preset, str):
        raise TaskOptionError("preset", "must be a text", preset)
    if preset not in mine and preset in PRESETS:
        raise TaskOptionError("preset", f"a preset of the task {PRESETS[preset][0]}, not of {task}", preset)
    if preset not in mine:
        raise TaskOptionError("preset", unknown("preset", preset, mine), preset)
    return mine[preset]


__all__ = [
    "PRESETS",
    "TASKS",
    "LanguageModel",
    "LinearAttention",
    "MatrixCompletion",
    "MatrixFactorization",
    "MatrixLogistic",
    "MatrixRegression",
    "Task",
    "TaskOptionError",
    "TaskOptions",
    "VisionTransformer",
    "option",
    "task_from_options",
    "task_schema",
    "task_type",
]
