"""The torch.optim face of a spectral rule: parameter groups, state, and equal shapes stacked into one batch.

Matrices of equal shape, dtype and device go through the rule together, as [count, rows, columns]: one batched product
instead of one small product each. Elementwise work is done on the stack or through `torch._foreach_*`. Nothing is read
back to the host, and gradients are only read.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import fields
from typing import Any, ClassVar, Final

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from optimizers.adamw import ADAMW_HYPERPARAMETERS, BESIDE_MATRICES, step_adamw
from optimizers.hyperparameters import Hyperparameter, check_values
from optimizers.matrix_views import as_matrices, check_view
from optimizers.spectral import SpectralRule
from optimizers.spelling import refuse_unknown

SPECTRAL: Final = "spectral"
ADAMW: Final = "adamw"
MECHANICS: Final = ("maximize", "foreach", "capturable")


class SpectralOptimizer(Optimizer):
    """A spectral optimizer for matrices with AdamW for the rest, in one object.

    Parameters given as a plain list are all matrices. A group with `algorithm="adamw"` holds parameters of any shape;
    it takes `lr` and `weight_decay` (by default those of the optimizer), `betas` (0.9, 0.95) and `eps` 1e-8. Options
    are plain values of the group, so schedulers, checkpoints and `torch.load(weights_only=True)` see all of them. With
    `flatten`, `split_sizes` or `num_heads` each parameter of a group stands for matrices, as `matrix_views` says.

    Attributes:
        rule_type: The rule of the matrices; its fields are options of a group.
        hyperparameters: What is legal for the options of a group of matrices.
        max_stack_bytes: Bytes of gradient that are stacked at once; several times as much is allocated for a moment.
        max_stack_bytes_on_cpu: The same on the CPU, where a stack that leaves the cache costs more than it saves.
    """

    rule_type: ClassVar[type[SpectralRule]]
    hyperparameters: ClassVar[dict[str, Hyperparameter]]
    max_stack_bytes: ClassVar[int] = 256 * 2**20
    max_stack_bytes_on_cpu: ClassVar[int] = 2 * 2**20

    def __init__(
        self,
        params: ParamsT,
        options: dict[str, Any],
        *,
        maximize: bool,
        foreach: bool | None,
        capturable: bool,
        differentiable: bool,
    ) -> None:
        if differentiable:
            raise ValueError(f"{type(self).__name__} cannot be differentiated through: got differentiable=True")
        mechanics = {"maximize": maximize, "foreach": foreach, "capturable": capturable}
        super().__init__(params, {"algorithm": SPECTRAL, **options, **mechanics})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of matrices, or of anything with `algorithm="adamw"`.

        Raises:
            ValueError: An illegal option, a complex or sharded parameter, or one that is not a matrix, with its shape.
        """
        refuse_unknown("algorithm", param_group.get("algorithm", SPECTRAL), (SPECTRAL, ADAMW))
        is_adamw = param_group.get("algorithm") == ADAMW
        given = set(param_group)
        if is_adamw:
            for name, default in BESIDE_MATRICES.items():
                param_group.setdefault(name, default)
        super().add_param_group(param_group)
        if is_adamw:
            for name in self.defaults.keys() - given - ADAMW_HYPERPARAMETERS.keys() - set(MECHANICS):
                del param_group[name]
        try:
            self._check_group(param_group)
        except ValueError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # overloads
        """Take one step; parameters without a gradient are left alone.

        Args:
            closure: Evaluates the model again and returns the loss.

        Returns:
            What the closure returned, None without one.

        Raises:
            ValueError: A sparse gradient, or one of another dtype, as a complex one, with the parameter's name.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _refuse_gradients(group)
            if group["algorithm"] == ADAMW:
                step_adamw(group, self.state)
            else:
                rule = self._rule(group)
                self._step_matrices(*as_matrices(group, self.state, rule), rule)
        return loss

    def _step_matrices(self, group: dict[str, Any], states: MutableMapping[Tensor, Any], rule: SpectralRule) -> None:
        for parameters in self._stacks(group):
            gradient = _stacked([_gradient(parameter) for parameter in parameters])
            own = [_state(states[parameter], parameter, rule) for parameter in parameters]
            state = {name: _stacked([entry[name] for entry in own]) for name in own[0]}
            update, state = rule.update(-gradient if group["maximize"] else gradient, state, group)
            for name, stack in state.items():
                torch._foreach_copy_([entry[name] for entry in own], stack.unbind())
            _write(parameters, update, lr=group["lr"], weight_decay=group["weight_decay"])

    def _stacks(self, group: dict[str, Any]) -> Iterator[list[Tensor]]:
        """Group the parameters that have a gradient by what can be stacked, in pieces below the cap."""
        alike: defaultdict[tuple[torch.Size, torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike[parameter.shape, parameter.dtype, parameter.device].append(parameter)
        for parameters in alike.values():
            num_bytes = max(1, parameters[0].numel() * parameters[0].element_size())
            is_cpu = parameters[0].device.type == "cpu"
            cap = min(self.max_stack_bytes, self.max_stack_bytes_on_cpu) if is_cpu else self.max_stack_bytes
            count = 1 if group["foreach"] is False else max(1, cap // num_bytes)
            yield from (parameters[start : start + count] for start in range(0, len(parameters), count))

    def _rule(self, group: dict[str, Any]) -> SpectralRule:
        options = [field.name for field in fields(self.rule_type) if field.name in group]
        return self.rule_type(**{name: group[name] for name in options})

    def _check_group(self, group: dict[str, Any]) -> None:
        lr = group["lr"]
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(f"a tensor lr has one element: got shape {tuple(lr.shape)}")
        is_adamw = group["algorithm"] == ADAMW
        values = {name: value for name, value in group.items() if name != "lr" or not isinstance(value, Tensor)}
        check_values(ADAMW_HYPERPARAMETERS if is_adamw else self.hyperparameters, values)
        if not is_adamw:
            self._rule(group)
        for name, parameter in _named(group):
            _check_parameter(name, parameter)
            if not is_adamw:
                check_view(name, tuple(parameter.shape), group)


def _named(group: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Give each parameter with what to call it in a message: its name where known, else its place in the group."""
    places = [f"parameter {place} of its group" for place in range(len(group["params"]))]
    yield from zip(group.get("param_names") or places, group["params"], strict=True)


def _check_parameter(name: str, parameter: Tensor) -> None:
    if not parameter.is_floating_point():
        raise ValueError(f"{name} is not real floating point, the only kind supported: got {parameter.dtype}")
    # A shard's polar factor is not the shard of the polar factor. Where the module is not loaded there is no DTensor.
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is not None and isinstance(parameter, distributed.DTensor):
        shape = tuple(parameter.shape)
        raise ValueError(f"{name} is sharded, only whole parameters are supported: got a DTensor of shape {shape}")


def _refuse_gradients(group: dict[str, Any]) -> None:
    for name, parameter in _named(group):
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.layout != torch.strided:
            shape = tuple(parameter.shape)
            raise ValueError(f"{name} has a sparse gradient, only dense ones are supported: got one of shape {shape}")
        if gradient.dtype != parameter.dtype:  # torch allows it where `grad_dtype` is set
            raise ValueError(f"the gradient of {name} must be of its dtype, {parameter.dtype}: got {gradient.dtype}")


def _state(state: dict[str, Tensor], parameter: Tensor, rule: SpectralRule) -> dict[str, Tensor]:
    if not state:
        state.update(rule.initial_state(parameter))
    return state


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _stacked(tensors: list[Tensor]) -> Tensor:
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tensors)


def _write(parameters: list[Tensor], update: Tensor, *, lr: float | Tensor, weight_decay: float) -> None:
    """Do in place what `spectral.apply_update` does."""
    rate = lr.reshape(()) if isinstance(lr, Tensor) else lr
    if weight_decay != 0:
        torch._foreach_mul_(parameters, 1 - rate * weight_decay)
    directions = update.to(parameters[0].dtype)
    if isinstance(rate, Tensor):
        torch._foreach_sub_(parameters, (rate * directions).to(parameters[0].dtype).unbind())
    else:
        torch._foreach_sub_(parameters, directions.unbind(), alpha=rate)
