"""What a specification may name: optimizers with their hyperparameters, tasks, schedules.

The rest of this package sees them through a small `Catalog`, so that reading a specification can be tested without
torch; `installed_catalog` makes the real one.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, cast

_CLUSTERS = ("RAY_ADDRESS", "SPECTUNE_RAY_ADDRESS")  # where workers run on other machines than this one


class HyperparameterDescription(Protocol):
    """What is asked of one hyperparameter of an optimizer."""

    @property
    def default(self) -> Any:
        """Its value where none is given; may be None."""

    def problem_with(self, value: Any) -> str | None:
        """Return why a value cannot be used; None where it can."""


class RefusedOptionError(ValueError):
    """An option of a task or schedule that cannot be used.

    Attributes:
        option: Its name.
        message: Why, without the value.
        value: What was given.
    """

    def __init__(self, option: str, message: str, value: Any) -> None:
        self.option = option
        self.message = message
        self.value = value
        super().__init__(f"{option}: {message}: got {value!r}")


@dataclass(frozen=True)
class TaskDescription:
    """A task whose options have been checked.

    Attributes:
        options: Every option, defaults filled in, as JSON.
        metrics: What it reports.
    """

    options: Mapping[str, Any]
    metrics: Collection[str]


@dataclass(frozen=True)
class Catalog:
    """What can be named.

    Attributes:
        optimizers: For each optimizer its hyperparameters.
        tasks: The names of the tasks.
        describe_task: Checks the options of a task, a user's own (`package.module:ClassName`) among them, and pins what
            its files hold; raises RefusedOptionError.
        check_schedule: Checks the options of a schedule; raises RefusedOptionError.
        num_gpus: How many all workers have together; None where that is a cluster's business.
    """

    optimizers: Mapping[str, Mapping[str, HyperparameterDescription]]
    tasks: Collection[str]
    describe_task: Callable[[str, Mapping[str, Any]], TaskDescription]
    check_schedule: Callable[[Mapping[str, Any]], None]
    num_gpus: int | None = None


@cache
def installed_catalog() -> Catalog:
    """Make the catalog of what is installed; imports torch."""
    import torch

    from spectune.optimizers.catalog import OPTIMIZERS
    from spectune.trainers.options import OptionError
    from spectune.trainers.schedules import Schedule
    from spectune.trainers.tasks import TASKS, TaskOptions, task_from_options
    from spectune.trainers.tasks.own import is_user_task, rehearse
    from spectune.trainers.user_code import OperatorInterrupt, running_user_code, told

    def describe_task(name: str, options: Mapping[str, Any]) -> TaskDescription:
        try:
            with running_user_code() if is_user_task(name) else nullcontext():
                task = task_from_options(name, options)
                task.check()
            if is_user_task(name):
                rehearse(task, name)
            if isinstance(task, TaskOptions):
                task = task.pinned()
            options = dataclasses.asdict(cast(Any, task))  # a task is a dataclass, which its protocol cannot say
            return TaskDescription(json.loads(json.dumps(options)), task.metrics)
        except OptionError as error:
            raise RefusedOptionError(error.option, error.message, error.value) from error
        except OperatorInterrupt:
            raise
        except BaseException as error:  # the constructor or a property of a user's class can raise anything
            if not is_user_task(name):
                raise
            raise RefusedOptionError("name", f"the task raised {told(error)}", name) from error

    def check_schedule(options: Mapping[str, Any]) -> None:
        try:
            Schedule(**options)
        except OptionError as error:
            raise RefusedOptionError(error.option, error.message, error.value) from error

    return Catalog(
        optimizers={name: entry.hyperparameters for name, entry in OPTIMIZERS.items()},
        tasks=tuple(TASKS),
        describe_task=describe_task,
        check_schedule=check_schedule,
        num_gpus=None if any(map(os.environ.get, _CLUSTERS)) else torch.cuda.device_count(),
    )
