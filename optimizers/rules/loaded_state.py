"""What is loaded into an optimizer: options that an older version lacks, and states that are not of their parameter.

A state dict of torch.optim.Muon has neither `algorithm` nor `solver`. What a group lacks comes from the group that is
replaced, else from the constructor. What cannot be gone on from is refused at loading, with its name and value.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from spectune.optimizers.parameters.matrix_views import VIEW_OPTIONS
from spectune.optimizers.rules.adamw import BESIDE_MATRICES

NOT_SUPPORTED: Final = {"amsgrad": True, "differentiable": True, "decoupled_weight_decay": False}
"""Options of torch's optimizers that would train otherwise here."""
NOT_OPTIONS: Final = ("params", "differentiable")
BUFFERS: Final = ("momentum_buffer", "exp_avg", "exp_avg_sq", "triples")


def signature_defaults(kind: type) -> dict[str, Any]:
    """Return the defaults of a class's constructor, by name."""
    parameters = inspect.signature(kind).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return {name: value for name, value in defaults.items() if name not in NOT_OPTIONS}


def completed(group: Mapping[str, Any], defaults: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    """Return a loaded group with what it lacks.

    Args:
        group: As loaded, with its parameters.
        defaults: Options of a group of matrices.
        here: The group that takes it; empty for a pickle, which takes the place of nothing.

    Raises:
        ValueError: An option of torch's that is not supported.
    """
    for name, value in NOT_SUPPORTED.items():
        if group.get(name, not value) == value:
            raise ValueError(f"a state trained with {name}={value} cannot be gone on from: got {name}={value!r}")
    algorithm = group.get("algorithm", here.get("algorithm", defaults.get("algorithm", "spectral")))
    options: dict[str, Any] = {"algorithm": algorithm}
    if algorithm == "adamw":
        names = ("lr", "weight_decay", "maximize", "foreach", "capturable")
        options |= {name: defaults[name] for name in names} | BESIDE_MATRICES
    else:
        options |= {**defaults, "algorithm": algorithm}
    if here.get("algorithm") == algorithm:
        options |= {name: value for name, value in here.items() if name in options or name in VIEW_OPTIONS}
    return {**options, **group}


def refuse_entries(state_dict: Mapping[str, Any]) -> None:
    """Refuse entries of a wrong kind, before torch casts tensors and copies anything that can be iterated over.

    Raises:
        ValueError: With the entry's name, and its dtype or value.
    """
    for number, state in state_dict["state"].items():
        for name in BUFFERS:
            value = state.get(name) if isinstance(state, Mapping) else None
            if value is not None and not isinstance(value, Tensor):
                raise ValueError(f"{name} of parameter {number} must be a tensor: got {value!r}")
            if isinstance(value, Tensor) and not value.is_floating_point():
                raise ValueError(f"{name} of parameter {number} must be real floating point: got {value.dtype}")
        if isinstance(state, Mapping) and not isinstance(state.get("step", 0), Tensor | int | float):
            raise ValueError(f"step of parameter {number} must be a number: got {state['step']!r}")


def refuse_state(parameter: str, state: Mapping[str, Any], shapes: Mapping[str, torch.Size | None]) -> None:
    """Refuse a state that is not one of its parameter.

    Args:
        parameter: What to call it.
        state: By name.
        shapes: What there must be; None for a shape that the parameter does not decide.

    Raises:
        ValueError: With the names of the parameter and of the entry, and what was got.
    """
    for name, shape in shapes.items():
        if name not in state:
            raise ValueError(f"the state of {parameter} lacks {name}: got {sorted(state)}")
        value = state[name]
        if name == "step":
            if not isinstance(value, Tensor | int | float):
                raise ValueError(f"step of {parameter} must be a number: got {value!r}")
        elif not isinstance(value, Tensor):
            raise ValueError(f"{name} of {parameter} must be a tensor: got {value!r}")
        elif not value.is_floating_point():
            raise ValueError(f"{name} of {parameter} must be real floating point: got {value.dtype}")
        elif shape is not None and value.shape != shape:
            raise ValueError(f"{name} of {parameter} must have shape {tuple(shape)}: got {tuple(value.shape)}")


def step_tensor(step: Tensor | float, device: torch.device) -> Tensor:
    """Return a count of steps as today's states have it; older ones of torch are plain numbers."""
    if isinstance(step, Tensor):
        return step.reshape(()) if step.numel() == 1 else step
    return torch.tensor(float(step), dtype=torch.float32, device=device)
