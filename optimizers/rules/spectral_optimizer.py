"""The torch.optim face of a spectral rule: parameter groups, state, and equal shapes stacked into one batch.

Matrices of equal shape, dtype and device go through the rule together, as [count, rows, columns]: one batched product
instead of one small product each. Elementwise work is done on the stack or through `torch._foreach_*`. Nothing is read
back to the host, and gradients are only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from spectune.optimizers.hyperparameters import Hyperparameter, check_before_step, check_values, plain
from spectune.optimizers.parameters.matrix_views import as_matrices, check_view
from spectune.optimizers.parameters.parameter_checks import check_parameter, named, refuse_gradients
from spectune.optimizers.polar import half_products
from spectune.optimizers.rules.adamw import ADAMW_HYPERPARAMETERS, BESIDE_MATRICES, begin_adamw, step_adamw
from spectune.optimizers.rules.loaded_state import (
    completed,
    refuse_entries,
    refuse_state,
    signature_defaults,
    step_tensor,
)
from spectune.optimizers.rules.planned_writes import PlannedWrite, hold, own_modes
from spectune.optimizers.rules.spectral import SpectralRule, State
from spectune.optimizers.scratch import scratch
from spectune.optimizers.spelling import refuse_unknown
from spectune.optimizers.stacking import batches, merged, parted, stack_into, wide_shape

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
        half_products.look()
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
            self._check_new_group(param_group)
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
        with own_modes(group["params"] for group in self.param_groups):
            self._step()
        return loss

    def _step(self) -> None:
        """Find every update, then write: a solver that fails, or an illegal option, has changed nothing."""
        for group in self.param_groups:
            refuse_gradients(group)
            check_before_step(self._table(group), group)
        planned: list[PlannedWrite] = []
        known = len(self.state)
        try:
            for group in self.param_groups:
                if group["algorithm"] == ADAMW:
                    begin_adamw(group, self.state)
                else:
                    rule = self._rule(group)
                    self._plan(*as_matrices(group, self.state, rule.initial_state), rule, planned)
        except BaseException:
            while len(self.state) > known:
                self.state.popitem()
            raise
        for group in self.param_groups:
            if group["algorithm"] == ADAMW:
                step_adamw(group, self.state)
        for write in planned:
            write.do()

    def _plan(
        self,
        group: dict[str, Any],
        states: MutableMapping[Tensor, Any],
        rule: SpectralRule,
        planned: list[PlannedWrite],
    ) -> None:
        for batch in self._batches(group, rule):
            owned = [[_state(states[parameter], parameter, rule) for parameter in stack] for stack in batch]
            given = [_gradients(stack, group) for stack in batch]
            hold(planned)
            each = zip(batch, given, owned, strict=True)
            if rule.is_staged:
                results = self._staged(batch, given, owned, group, rule)
            else:
                results = [self._updated(stack, gradients, own, group, rule) for stack, gradients, own in each]
            for stack, gradients, own, (update, state) in zip(batch, given, owned, results, strict=True):
                planned.append(PlannedWrite(stack, gradients, own, update, state, group, rule))

    def _staged(
        self,
        batch: list[list[Tensor]],
        given: list[list[Tensor]],
        owned: list[list[State]],
        group: dict[str, Any],
        rule: SpectralRule,
    ) -> list[tuple[Tensor, State]]:
        """Return the update and the stacked states yet to be written of each stack, their directions taken together."""
        followed = [
            rule.follow_each(gradients, own, group, _memory(stack, place, rule.stacked_dtype(stack[0])))
            for place, (stack, gradients, own) in enumerate(zip(batch, given, owned, strict=True))
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
        stack: list[Tensor], gradients: list[Tensor], own: list[State], group: dict[str, Any], rule: SpectralRule
    ) -> tuple[Tensor, State]:
        gradient = stack_into(_memory(stack, 0, stack[0].dtype), gradients)
        state = {name: torch.stack([entry[name] for entry in own]) for name in own[0]}
        return rule.update(gradient, state, group)

    def _batches(self, group: dict[str, Any], rule: SpectralRule) -> Iterator[list[list[Tensor]]]:
        """Group the parameters that have a gradient by what takes its direction together, in pieces below the cap."""
        present = [parameter for parameter in group["params"] if parameter.grad is not None and parameter.numel() > 0]
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

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load a state, of a pickle or of `load_state_dict`; options that it lacks come from the constructor.

        Raises:
            ValueError: An illegal option, or a state that is not one of its parameter, with its name and value; the
                optimizer is then as it was.
        """
        defaults = {**signature_defaults(type(self)), **state.get("defaults", self.__dict__.get("defaults", {}))}
        here = self.__dict__.get("param_groups", [])
        loaded = enumerate(state["param_groups"])
        groups = [completed(group, defaults, dict(*here[place : place + 1])) for place, group in loaded]
        for group in groups:
            self._check_group(group)
            for name, parameter in named(group):
                self._check_state(name, parameter, state["state"].get(parameter, {}), group)
        if "defaults" in state:
            state = {**state, "defaults": defaults}
        super().__setstate__({**state, "param_groups": groups})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the state of an optimizer, of ours or of torch's; options that it lacks come from the constructor.

        Raises:
            ValueError: As `__setstate__`.
        """
        refuse_entries(state_dict)
        with own_modes(group["params"] for group in self.param_groups):
            super().load_state_dict(state_dict)

    def _check_state(self, name: str, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            return
        if group["algorithm"] == ADAMW:
            refuse_state(name, state, {"exp_avg": parameter.shape, "exp_avg_sq": parameter.shape, "step": None})
            state["step"] = step_tensor(state["step"], parameter.device if group["capturable"] else torch.device("cpu"))
            return
        refuse_state(name, state, self._rule(group).state_shapes(parameter.shape))
        if "step" in state and not isinstance(state["step"], Tensor):
            state["step"] = (
                step_tensor(state["step"], torch.device("cpu")).expand(*state["triples"].shape[:-2], 1, 1).clone()
            )

    def _rule(self, group: dict[str, Any]) -> SpectralRule:
        names = self.rule_type.__dataclass_fields__  # the compiler cannot follow `fields`
        return self.rule_type(**{name: group[name] for name in names if name in group})

    def _table(self, group: dict[str, Any]) -> dict[str, Hyperparameter]:
        return ADAMW_HYPERPARAMETERS if group["algorithm"] == ADAMW else self.hyperparameters

    def _check_group(self, group: dict[str, Any]) -> None:
        is_adamw = group["algorithm"] == ADAMW
        refuse_unknown("algorithm", group["algorithm"], (SPECTRAL, ADAMW))
        for name in group.keys() - {"params", "param_names", "lr"}:
            group[name] = plain(group[name])
        group["lr"] = group["lr"] if isinstance(group["lr"], Tensor) else plain(group["lr"])
        check_values(self._table(group), group)
        if not is_adamw:
            self._rule(group)
        for name, parameter in named(group):
            check_parameter(name, parameter)
            if not is_adamw:
                check_view(name, tuple(parameter.shape), group)

    def _check_new_group(self, group: dict[str, Any]) -> None:
        """Refuse what only a group without a state cannot do; nothing by default."""


def _state(state: dict[str, Tensor], parameter: Tensor, rule: SpectralRule) -> dict[str, Tensor]:
    if not state:
        state.update(rule.initial_state(parameter))
    return state


def _memory(parameters: list[Tensor], place: int, dtype: torch.dtype) -> Tensor:
    return scratch((len(parameters), *parameters[0].shape), f"step.followed.{place}", like=parameters[0], dtype=dtype)


def _gradients(parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return list(torch._foreach_neg(gradients)) if group["maximize"] else gradients
