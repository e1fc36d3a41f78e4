"""The torch.optim face of a spectral rule: parameter groups, state, and equal shapes stacked into one batch.

Matrices of equal shape, dtype and device go through the rule together, as [count, rows, columns]: one batched product
instead of one small product each. Elementwise work is done on the stack or through `torch._foreach_*`. Nothing is read
back to the host, and gradients are only read.
"""

from __future__ import annotations

import sys
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
from optimizers.parameter_updates import write_
from optimizers.scratch import scratch
from optimizers.spectral import SpectralRule, State
from optimizers.spelling import refuse_unknown
from optimizers.stacking import batches, merged, parted, stack_into, wide_shape

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
        merge: Which shapes share a direction: one of `stacking.MERGES`. `padded` serves many small shapes that nearly
            agree; it adds flops, and is `transposed` where the solver does not bear it.
        merge_on_cpu: The same on the CPU, where nothing waits for launches and turning a matrix costs two products.
    """

    rule_type: ClassVar[type[SpectralRule]]
    hyperparameters: ClassVar[dict[str, Hyperparameter]]
    max_stack_bytes: ClassVar[int] = 256 * 2**20
    max_stack_bytes_on_cpu: ClassVar[int] = 2 * 2**20
    merge: ClassVar[str] = "transposed"
    merge_on_cpu: ClassVar[str] = "equal"

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
        for batch in self._batches(group, rule):
            owned = [[_state(states[parameter], parameter, rule) for parameter in stack] for stack in batch]
            if rule.is_staged:
                results = self._staged(batch, owned, group, rule)
            else:
                results = [self._updated(stack, own, group, rule) for stack, own in zip(batch, owned, strict=True)]
            for parameters, own, (update, state) in zip(batch, owned, results, strict=True):
                for name, values in state.items():
                    torch._foreach_copy_([entry[name] for entry in own], list(values.unbind()))
                factor = rule.factor(*parameters[0].shape) if rule.is_staged else None
                write_(parameters, update, lr=group["lr"], weight_decay=group["weight_decay"], factor=factor or 1.0)

    def _staged(
        self, batch: list[list[Tensor]], owned: list[list[State]], group: dict[str, Any], rule: SpectralRule
    ) -> list[tuple[Tensor, State]]:
        """Give the update and the stacked states yet to be written of each stack, their directions taken together."""
        followed = [
            rule.follow_each(_gradients(stack, group), own, group, _memory(stack, place, rule.stacked_dtype(stack[0])))
            for place, (stack, own) in enumerate(zip(batch, owned, strict=True))
        ]
        stacks = [stack for stack, _ in followed]
        directions = self._directions(stacks, group, rule)
        each = zip(directions, followed, strict=True)
        if rule.factor(1, 1) is not None:
            return [(direction, state) for direction, (_, state) in each]  # the factor joins the learning rate
        return [rule.finish(direction, stack, state, group) for direction, (stack, state) in each]

    @staticmethod
    def _directions(stacks: list[Tensor], group: dict[str, Any], rule: SpectralRule) -> list[Tensor]:
        lends = rule.factor(1, 1) is not None  # nothing but the write reads it
        if len(stacks) == 1:
            return [rule.direction(stacks[0], group, lends=lends)]
        shape = (sum(map(len, stacks)), *wide_shape(stacks))
        memory = scratch(shape, "step.merged", like=stacks[0])
        return parted(rule.direction(merged(stacks, memory), group, lends=lends), stacks)

    @staticmethod
    def _updated(
        parameters: list[Tensor], own: list[State], group: dict[str, Any], rule: SpectralRule
    ) -> tuple[Tensor, State]:
        gradient = stack_into(_memory(parameters, 0, parameters[0].dtype), _gradients(parameters, group))
        state = {name: torch.stack([entry[name] for entry in own]) for name in own[0]}
        return rule.update(gradient, state, group)

    def _batches(self, group: dict[str, Any], rule: SpectralRule) -> Iterator[list[list[Tensor]]]:
        """Group the parameters that have a gradient by what takes its direction together, in pieces below the cap."""
        present = [parameter for parameter in group["params"] if parameter.grad is not None]
        on_cpu = [parameter for parameter in present if parameter.device.type == "cpu"]
        elsewhere = [parameter for parameter in present if parameter.device.type != "cpu"]
        for parameters, merge, cap in (
            (on_cpu, self.merge_on_cpu, min(self.max_stack_bytes, self.max_stack_bytes_on_cpu)),
            (elsewhere, self.merge, self.max_stack_bytes),
        ):
            if not rule.is_staged:
                merge = "equal"
            elif merge == "padded" and not rule.bears_padding:
                merge = "transposed"
            yield from batches(parameters, merge=merge, cap=0 if group["foreach"] is False else cap)

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
    given = [parameter for parameter in group["params"] if parameter.grad is not None]
    if all(each.grad.layout == torch.strided and each.grad.dtype == each.dtype for each in given):
        return
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


def _memory(parameters: list[Tensor], place: int, dtype: torch.dtype) -> Tensor:
    return scratch((len(parameters), *parameters[0].shape), f"step.followed.{place}", like=parameters[0], dtype=dtype)


def _gradients(parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return list(torch._foreach_neg(gradients)) if group["maximize"] else gradients
