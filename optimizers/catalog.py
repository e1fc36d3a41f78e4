"""The optimizers by name: what they are, what may be set, and how one is built for a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from spectune.optimizers.hyperparameters import Hyperparameter, check_values, plain, table_of
from spectune.optimizers.parameters.parameter_groups import ParameterSplit, is_vector, split
from spectune.optimizers.rules.adamw import ADAMW_BETAS, ADAMW_EPS, ADAMW_HYPERPARAMETERS, BESIDE_MATRICES
from spectune.optimizers.rules.gradient_descent import GRADIENT_DESCENT_HYPERPARAMETERS
from spectune.optimizers.rules.muon import Muon
from spectune.optimizers.rules.polargrad import PolarGrad
from spectune.optimizers.rules.root import Root
from spectune.optimizers.rules.spectral_descent import SpectralDescent
from spectune.optimizers.rules.spectral_optimizer import ADAMW, SpectralOptimizer
from spectune.optimizers.spelling import refuse_unknown

ADAMW_LR_RATIO: Final = 0.1
"""Beside updates of spectral norm one, as Jordan's Muon; updates as large as AdamW's take AdamW's own rate, 1."""

MECHANICS: Final = ("maximize", "foreach", "capturable", "differentiable", "fused", "amsgrad")
"""Keywords of torch's constructors that no campaign searches; a spectral class refuses `differentiable=True`."""

BESIDE: Final = table_of(
    Hyperparameter(
        name="adamw_lr",
        kind="float",
        default=None,
        low=0,
        elementwise=True,
        sentence="Learning rate of the parameters that are not matrices; by default lr times adamw_lr_ratio, beside "
        "polargrad 0.001.",
    ),
    Hyperparameter(
        name="adamw_lr_ratio",
        kind="float",
        default=None,
        low=0,
        elementwise=True,
        sentence="That learning rate as a multiple of lr, not together with adamw_lr; by default 1 if updates are as "
        "large as AdamW's (root, match_rms_adamw), else 0.1.",
    ),
    replace(ADAMW_BETAS, name="adamw_betas", default=BESIDE_MATRICES["betas"]),
    replace(ADAMW_EPS, name="adamw_eps", default=BESIDE_MATRICES["eps"]),
    Hyperparameter(
        name="adamw_weight_decay",
        kind="float",
        default=None,
        low=0,
        elementwise=True,
        sentence="Decoupled decay of the parameters that are not matrices; by default weight_decay.",
    ),
    Hyperparameter(
        name="decay_vectors",
        kind="boolean",
        default=False,
        sentence="Whether vectors, as gains and biases, decay as well.",
    ),
)


@dataclass(frozen=True)
class OptimizerEntry:
    """One optimizer of the catalogue; `hyperparameters` are the keywords that `build_optimizer` takes for it."""

    name: str
    summary: str
    hyperparameters: dict[str, Hyperparameter]


SPECTRAL_CLASSES: Final[dict[str, type[SpectralOptimizer]]] = {
    "muon": Muon,
    "polargrad": PolarGrad,
    "root": Root,
    "spectral_descent": SpectralDescent,
}

OPTIMIZERS: Final[dict[str, OptimizerEntry]] = {
    "muon": OptimizerEntry("muon", "Momentum made orthogonal by Newton-Schulz.", {**Muon.hyperparameters, **BESIDE}),
    "polargrad": OptimizerEntry(
        "polargrad", "The polar factor at the length of the nuclear norm.", {**PolarGrad.hyperparameters, **BESIDE}
    ),
    "root": OptimizerEntry(
        "root", "Momentum without its outliers, made orthogonal.", {**Root.hyperparameters, **BESIDE}
    ),
    "spectral_descent": OptimizerEntry(
        "spectral_descent",
        "The exact polar factor of the gradient, without momentum: Muon as the theory sees it.",
        {**SpectralDescent.hyperparameters, **BESIDE},
    ),
    "adamw": OptimizerEntry("adamw", "AdamW for every parameter, the baseline.", ADAMW_HYPERPARAMETERS),
    "sgd": OptimizerEntry(
        "sgd",
        "Plain gradient descent for every parameter, the baseline of the theory.",
        GRADIENT_DESCENT_HYPERPARAMETERS,
    ),
}


def build_optimizer(
    model: nn.Module, name: str, *, parts: ParameterSplit | None = None, **hyperparameters: Any
) -> torch.optim.Optimizer:
    """Build one optimizer for a whole model: its matrices by the rule asked for, the rest by AdamW.

    Args:
        model: Any module with parameters.
        name: A key of `OPTIMIZERS`. `adamw` and `sgd` train every parameter and decay every one.
        parts: What `parameter_groups.split` made of this model with options; by default it is asked without any.
            Not for `adamw` and `sgd`.
        hyperparameters: Keywords of the catalogue's entry, and of `MECHANICS` those that the class's constructor takes;
            the others keep their defaults. `lr` may be a tensor of one element.

    Returns:
        An optimizer whose groups, matrices first (what is flattened or split in groups of its own), carry `lr` and the
        same as `initial_lr`, for schedules to multiply.

    Raises:
        ValueError: An unknown name or keyword, an illegal value, both `adamw_lr` and `adamw_lr_ratio`, a model without
            the matrices that the optimizer is for, or parts of another model.
    """
    refuse_unknown("optimizer", name, OPTIMIZERS)
    table, taken = OPTIMIZERS[name].hyperparameters, _mechanics_of(name)
    for given in hyperparameters:
        refuse_unknown(f"hyperparameter of {name}", given, [*table, *taken])
    mechanics = {given: hyperparameters.pop(given) for given in taken if given in hyperparameters}
    for given, value in hyperparameters.items():
        hyperparameters[given] = value if given == "lr" and isinstance(value, Tensor) else plain(value)
    check_values(table, hyperparameters)
    if parts is not None:
        _check_parts(parts, model, name)
    if name == "adamw":
        optimizer: torch.optim.Optimizer = _adamw(model, hyperparameters, mechanics)
    elif name == "sgd":
        optimizer = torch.optim.SGD(model.named_parameters(), **_filled(table, hyperparameters), **mechanics)
    else:
        kind = partial(SPECTRAL_CLASSES[name], **mechanics)
        where = split(model) if parts is None else parts
        optimizer = _spectral(where, name, SPECTRAL_CLASSES[name], hyperparameters, kind)
    for place, group in enumerate(optimizer.param_groups):
        if isinstance(group["lr"], Tensor) and place > 0:
            group["lr"] = group["lr"].clone()  # else a schedule would multiply one tensor for each of its groups
        group["initial_lr"] = group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"]
    return optimizer


def _mechanics_of(name: str) -> list[str]:
    """Return the keywords of an optimizer's constructor that say how it works, not what it computes."""
    kinds: dict[str, type] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, **SPECTRAL_CLASSES}
    return [each for each in MECHANICS if each in inspect.signature(kinds[name]).parameters]


def _adamw(model: nn.Module, given: Mapping[str, Any], mechanics: Mapping[str, Any]) -> torch.optim.AdamW:
    values = {**_filled(ADAMW_HYPERPARAMETERS, given), **mechanics}
    return torch.optim.AdamW(model.named_parameters(), **{**values, "betas": tuple(values["betas"])})


def _check_parts(parts: ParameterSplit, model: nn.Module, name: str) -> None:
    if name not in SPECTRAL_CLASSES:
        raise ValueError(f"{name} trains every parameter alike: got parts of {len(parts.assignments)} parameters")
    split_up = {id(parameter) for _, parameter in parts.matrices + parts.rest}
    strangers = [own for own, parameter in model.named_parameters() if id(parameter) not in split_up]
    if strangers or len(split_up) != len(list(model.parameters())):
        raise ValueError(
            f"parts must be of the same model: got {len(strangers)} parameters in neither, {strangers[:3]}"
        )


def _spectral(
    parts: ParameterSplit,
    name: str,
    kind: type[SpectralOptimizer],
    given: Mapping[str, Any],
    construct: Callable[..., SpectralOptimizer],
) -> SpectralOptimizer:
    if not parts.matrices:
        flattened = " (a convolution is one by split(..., flatten=True))" if _has_convolution(parts) else ""
        raise ValueError(f"{kind.__name__} needs a matrix to train: got a model with none{flattened}\n{parts.report()}")
    options = _filled(kind.hyperparameters, given)
    beside = _beside(name, options, given)
    decays = [given.get("decay_vectors", False) or not is_vector(parameter) for _, parameter in parts.rest]
    groups = parts.groups()
    for weight_decay, is_meant in ((beside["weight_decay"], True), (0.0, False)):
        some = [pair for pair, decay in zip(parts.rest, decays, strict=True) if decay is is_meant]
        if some:
            groups.append({"params": some, "algorithm": ADAMW, **beside, "weight_decay": weight_decay})
    return construct(groups, **options)


def _has_convolution(parts: ParameterSplit) -> bool:
    return any(parameter.ndim > 2 for _, parameter in parts.rest)


def _filled(table: Mapping[str, Hyperparameter], given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given.get(name, entry.default) for name, entry in table.items()}


def _beside(name: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the AdamW groups, from those of the matrices if nothing else is said."""
    absolute, ratio = given.get("adamw_lr"), given.get("adamw_lr_ratio")
    if absolute is not None and ratio is not None:
        raise ValueError(f"give either adamw_lr or adamw_lr_ratio: got {absolute!r} and {ratio!r}")
    decay = given.get("adamw_weight_decay")
    return {
        "lr": _adamw_lr(name, options, ratio) if absolute is None else absolute,
        "weight_decay": options["weight_decay"] if decay is None else decay,
        "betas": tuple(given.get("adamw_betas", BESIDE_MATRICES["betas"])),
        "eps": given.get("adamw_eps", BESIDE_MATRICES["eps"]),
    }


def _adamw_lr(name: str, options: Mapping[str, Any], ratio: float | None) -> Any:
    """Return AdamW's rate by the unit of the matrices' rate; PolarGrad's, an inverse curvature, says nothing of it."""
    if ratio is not None:
        return options["lr"] * ratio
    if name == "polargrad":
        return ADAMW_HYPERPARAMETERS["lr"].default
    is_matched = name == "root" or options.get("adjust_lr_fn") == "match_rms_adamw"
    return options["lr"] * (1.0 if is_matched else ADAMW_LR_RATIO)
