"""A user's own task, named `package.module:ClassName`: found, and rehearsed once before any worker starts.

The module must be importable where the campaign is submitted and where its workers run: installed, or on PYTHONPATH.
The class is a frozen dataclass of plain options with the methods of `Task`; inheriting `TaskOptions` gives it gradient
noise, bounds and what most tasks answer alike.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import io
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, Final, TypeVar, cast

import torch
from torch import nn

from spectune.trainers.checkpoints import CheckpointError, check_state, copied
from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.options import TaskOptionError
from spectune.trainers.tasks.task import TRAINING_METRICS, Batch, Task, TaskOptions, batch_is_fixed, items_per_step
from spectune.trainers.user_code import (
    OperatorInterrupt,
    UserCodeError,
    checked_batch,
    checked_loss,
    checked_metrics,
    described,
    running_user_code,
    told,
)

_OUR_PACKAGE: Final = "spectune"
_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "check": ("self",),
    "build": ("self", "generator"),
    "batch": ("self", "step", "seed"),
    "loss": ("self", "model", "batch"),
    "evaluate": ("self", "model", "seed"),
}
_VALUES: Final = ("name", "metrics", "items_per_step")
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_PLAIN = (str, int, float, bool, type(None))
_T = TypeVar("_T")
_IMPORTING = threading.Lock()  # the streams that are redirected belong to all threads


def is_user_task(name: object) -> bool:
    """Return whether a task's name means a class of the user's."""
    return isinstance(name, str) and ":" in name


def own_task_type(name: str) -> type[Task]:
    """Import a user's class and look whether it can be a task.

    Raises:
        TaskOptionError: Naming the module, or the class and what it lacks.
    """
    if not _NAME.fullmatch(name):
        raise TaskOptionError("name", "a task of your own is written package.module:ClassName", name)
    module_name, _, class_name = name.partition(":")
    if module_name.split(".")[0] == _OUR_PACKAGE:
        raise TaskOptionError("name", f"the package {_OUR_PACKAGE!r} is Spectune's own", name)
    found = getattr(_imported(module_name, name), class_name, None)
    if found is None:
        raise TaskOptionError("name", f"the module {module_name} has no {class_name}", name)
    _check_class(found, name)
    return cast(type[Task], found)


def rehearse(task: Task, name: str) -> None:
    """Take a task of the user's through everything but an optimizer's step, once.

    Raises:
        TaskOptionError: Naming class and method, and what it did.
    """
    model = _tried(task, name, "build", lambda: task.build(generator_for("model", 0)))
    if not isinstance(model, nn.Module) or not list(model.parameters()):
        raise _wrong(task, name, "build", f"must give a module with parameters, gave {described(model)}")
    state = _tried(task, name, "build", lambda: copied(model.state_dict()))
    _accepted(name, lambda: _check_state(state, source=f"{type(task).__name__}.build"))
    _tried(task, name, "items_per_step", lambda: _accepted(name, lambda: items_per_step(task)))
    batch = _tried(task, name, "batch", lambda: task.batch(0, 0))
    batch = _accepted(name, lambda: checked_batch(batch, source=f"{type(task).__name__}.batch"))
    if batch_is_fixed(task) and not _are_equal(batch, _tried(task, name, "batch", lambda: task.batch(1, 0))):
        raise _wrong(task, name, "batch", "must give one batch for all steps where batch_is_fixed says so")
    loss = _tried(task, name, "loss", lambda: task.loss(model, batch))
    _accepted(name, lambda: checked_loss(loss, source=f"{type(task).__name__}.loss"))
    if not loss.requires_grad:
        raise _wrong(task, name, "loss", "must depend on the model's parameters, has no gradient")
    with torch.no_grad():
        metrics = _tried(task, name, "evaluate", lambda: task.evaluate(model, 0))
    source, promised = f"{type(task).__name__}.evaluate", set(task.metrics) - set(TRAINING_METRICS)
    _accepted(name, lambda: checked_metrics(metrics, source=source, promised=promised))


def _check_state(state: Mapping[str, Any], *, source: str) -> None:
    try:
        check_state(state)
    except CheckpointError as error:
        raise UserCodeError(f"{source} gave a module that cannot be kept: {error}") from error


def _are_equal(batch: Batch, other: Batch) -> bool:
    return len(batch) == len(other) and all(map(torch.equal, batch, other))


def _imported(module_name: str, name: str) -> Any:
    printed = io.StringIO()  # a module that parses arguments prints its usage, under the name of our command
    try:
        with _IMPORTING, redirect_stdout(printed), redirect_stderr(printed), running_user_code():
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        message = f"no module {error.name!r} can be imported; install it, or put its folder on PYTHONPATH"
        raise TaskOptionError("name", message, name) from error
    except OperatorInterrupt:
        raise
    except BaseException as error:  # a user's module can raise anything, the exit of argparse among it
        raise TaskOptionError("name", f"importing {module_name} raised {told(error)}", name) from error


def _check_class(found: Any, name: str) -> None:
    if not isinstance(found, type) or not dataclasses.is_dataclass(found):
        raise TaskOptionError("name", f"{found!r} is no dataclass", name)
    if not cast(Any, found).__dataclass_params__.frozen:
        raise TaskOptionError("name", f"the dataclass {found.__name__} must be frozen", name)
    for field in dataclasses.fields(found):
        if field.default is dataclasses.MISSING or not isinstance(field.default, _PLAIN):
            message = f"the option {field.name} of {found.__name__} must have a default that is text, number or null"
            raise TaskOptionError("name", message, name)
    for value in _VALUES:
        if not hasattr(found, value):
            raise TaskOptionError("name", f"the class {found.__name__} lacks {value}", name)
    for method, parameters in _PARAMETERS.items():
        if not callable(getattr(found, method, None)):
            raise TaskOptionError("name", f"the class {found.__name__} lacks the method {method}", name)
        try:
            inspect.signature(getattr(found, method)).bind(*parameters)
        except TypeError as error:
            message = f"{found.__name__}.{method} must take ({', '.join(parameters)})"
            raise TaskOptionError("name", message, name) from error
    inherited = [getattr(found, each, None) is getattr(TaskOptions, each) for each in ("evaluate", "measure")]
    if all(inherited):  # TaskOptions.evaluate floats what `measure` gives
        raise TaskOptionError("name", f"the class {found.__name__} lacks the method evaluate", name)


def _tried(task: Task, name: str, method: str, call: Callable[[], _T]) -> _T:
    try:
        with running_user_code():
            return call()
    except (TaskOptionError, OperatorInterrupt):
        raise
    except BaseException as error:  # a user's method can raise anything
        raise _wrong(task, name, method, f"raised {told(error)}") from error


def _accepted(name: str, check: Callable[[], _T]) -> _T:
    try:
        return check()
    except UserCodeError as error:
        raise TaskOptionError("name", str(error), name) from error


def _wrong(task: Task, name: str, method: str, message: str) -> TaskOptionError:
    return TaskOptionError("name", f"{type(task).__name__}.{method} {message}", name)
