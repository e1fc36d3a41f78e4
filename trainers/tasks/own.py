"""A user's own task, named `package.module:ClassName`: found, and rehearsed once before any worker starts.

The module must be importable where the campaign is submitted and where its workers run: installed, or on PYTHONPATH.
The class is a frozen dataclass of plain options with the methods of `Task`; inheriting `TaskOptions` gives it gradient
noise, bounds and what most tasks answer alike.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

import torch
from torch import Tensor, nn

from trainers.seeds import generator_for
from trainers.tasks.options import TaskOptionError
from trainers.tasks.task import TRAINING_METRICS, Batch, Task, TaskOptions, batch_is_fixed

OURS: Final = ("optimizers", "search_spaces", "service", "trainers")
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


def is_own(name: object) -> bool:
    """Tell whether a task's name means a class of the user's."""
    return isinstance(name, str) and ":" in name


def own_task_type(name: str) -> type[Task]:
    """Import a user's class and look whether it can be a task.

    Raises:
        TaskOptionError: Naming the module, or the class and what it lacks.
    """
    if not _NAME.fullmatch(name):
        raise TaskOptionError("name", "a task of your own is written package.module:ClassName", name)
    module_name, _, class_name = name.partition(":")
    if module_name.split(".")[0] in OURS:
        raise TaskOptionError("name", f"{module_name.split('.')[0]!r} is a package of Spectune's own", name)
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
        raise _wrong(task, name, "build", f"must give a module with parameters, gives {_described(model)}")
    batch = _tried(task, name, "batch", lambda: task.batch(0, 0))
    if not isinstance(batch, tuple) or not all(isinstance(part, Tensor) for part in batch):
        raise _wrong(task, name, "batch", f"must give a tuple of tensors, gives {_described(batch)}")
    if batch_is_fixed(task) and not _are_equal(batch, _tried(task, name, "batch", lambda: task.batch(1, 0))):
        raise _wrong(task, name, "batch", "must give one batch for all steps where batch_is_fixed says so")
    loss = _tried(task, name, "loss", lambda: task.loss(model, batch))
    if not isinstance(loss, Tensor) or loss.shape != () or not loss.is_floating_point():
        raise _wrong(task, name, "loss", f"must give a scalar, gives {_described(loss)}")
    if not loss.requires_grad:
        raise _wrong(task, name, "loss", "must depend on the model's parameters, has no gradient")
    with torch.no_grad():
        metrics = _tried(task, name, "evaluate", lambda: task.evaluate(model, 0))
    _check_metrics(task, name, metrics)


def _are_equal(batch: Batch, other: Batch) -> bool:
    return len(batch) == len(other) and all(map(torch.equal, batch, other))


def _imported(module_name: str, name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        message = f"no module {error.name!r} can be imported; install it, or put its folder on PYTHONPATH"
        raise TaskOptionError("name", message, name) from error
    except Exception as error:  # a user's module can raise anything
        raise TaskOptionError("name", f"importing {module_name} raised {_told(error)}", name) from error


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


def _check_metrics(task: Task, name: str, metrics: object) -> None:
    if not isinstance(metrics, dict) or not all(isinstance(value, float) for value in metrics.values()):
        raise _wrong(task, name, "evaluate", f"must give numbers by name, gives {_described(metrics)}")
    promised = set(task.metrics) - set(TRAINING_METRICS)
    if set(metrics) != promised:
        message = f"gives {sorted(metrics)}, while metrics promises {sorted(promised)}"
        raise _wrong(task, name, "evaluate", message)


def _tried(task: Task, name: str, method: str, call: Callable[[], _T]) -> _T:
    try:
        return call()
    except TaskOptionError:
        raise
    except Exception as error:  # a user's method can raise anything
        raise _wrong(task, name, method, f"raised {_told(error)}") from error


def _wrong(task: Task, name: str, method: str, message: str) -> TaskOptionError:
    return TaskOptionError("name", f"{type(task).__name__}.{method} {message}", name)


def _described(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _told(error: BaseException) -> str:
    first = str(error).strip().splitlines()[:1]
    return f"{type(error).__name__}: {first[0][:200]}" if first else type(error).__name__
