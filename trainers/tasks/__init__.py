"""Tasks: what is trained. One file each; a new one is added to `TASKS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainers.options import unknown
from trainers.tasks.language_model import LanguageModel
from trainers.tasks.matrix_completion import MatrixCompletion
from trainers.tasks.options import TaskOptionError
from trainers.tasks.task import Task, from_options

TASKS: dict[str, type[Task]] = {
    MatrixCompletion.name: MatrixCompletion,
    LanguageModel.name: LanguageModel,
}


def task_from_options(name: str, options: Mapping[str, Any]) -> Task:
    """Make a task from its name and the options a user wrote.

    Raises:
        TaskOptionError: The name or an option is unknown, or an option has the wrong type.
    """
    if name not in TASKS:
        raise TaskOptionError("name", unknown("task", str(name), TASKS), name)
    return from_options(TASKS[name], options)


__all__ = ["TASKS", "LanguageModel", "MatrixCompletion", "Task", "TaskOptionError", "task_from_options"]
