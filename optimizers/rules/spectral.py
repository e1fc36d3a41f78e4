"""The loop that all spectral optimizers share, on tensors [..., rows, columns] with any leading dimensions.

    momentum -> suppress outliers -> direction (polar factor) -> scale -> decoupled decay and write

A rule is a frozen object that differs in some of the middle stages. Structural options are its fields. Elementwise
hyperparameters (`momentum`, `ns_steps`, `eps`, `percentile`, and `lr`, `weight_decay` of the last stage) come with each
call: numbers, or tensors that broadcast over the leading dimensions, as [members, 1, 1]. Nothing is changed in place.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from spectune.optimizers.polar.coefficients import MINIMAX_LOWEST_OF_MOMENTA
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.polar.solvers import SOLVERS, Coefficients, check_solver
from spectune.optimizers.stacking import stack_into
from spectune.optimizers.stages.momentum import average

State: TypeAlias = dict[str, Tensor]
Hyperparameters: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SpectralRule(ABC):
    """How a gradient becomes an update.

    Attributes:
        solver: A key of `polar.SOLVERS`.
        compute_dtype: As for `polar.polar_factor`; None is torch.optim.Muon's, as `arithmetic` says.
        nesterov: Whether to look ahead along the momentum.
        l0: As for `polar.polar_factor`; None is 1e-3, which momenta need, for the minimax quintics.
    """

    solver: str
    compute_dtype: str | None = "auto"
    nesterov: bool = False
    l0: float | None = None

    def __post_init__(self) -> None:
        coefficients = self.solver_coefficients
        check_solver(self.solver, coefficients=coefficients, compute_dtype=self.arithmetic, l0=self.l0)

    @property
    def arithmetic(self) -> str:
        """The arithmetic asked of the solver; None is bfloat16, torch's, for `newton_schulz`, else `auto`."""
        if self.compute_dtype is not None:
            return self.compute_dtype
        return "bfloat16" if self.solver == "newton_schulz" else "auto"

    @property
    def solver_coefficients(self) -> Coefficients | None:
        """The solver's coefficients, None for its own."""
        return None

    def initial_state(self, parameter: Tensor) -> State:
        """Return the state before the first step, in the shape, dtype and device of the parameter."""
        return {"momentum_buffer": torch.zeros_like(parameter, memory_format=torch.preserve_format)}

    def state_shapes(self, shape: torch.Size) -> dict[str, torch.Size | None]:
        """Return the entries of a state, with their shapes where the shape of the parameter decides them."""
        return {"momentum_buffer": shape}

    def update(self, gradient: Tensor, state: State, hyperparameters: Hyperparameters) -> tuple[Tensor, State]:
        """Turn a gradient into what `apply_update` subtracts, times the learning rate.

        Args:
            gradient: Shape [..., rows, columns].
            state: From `initial_state` or the update before.
            hyperparameters: At least those that the rule reads; others are passed over.

        Returns:
            The update, with shape and dtype of the gradient, and the new state. A non-finite gradient gives a
            non-finite update of its own matrix and leaves the others of the batch alone.
        """
        followed, state = self.follow(gradient, state, hyperparameters)
        return self.finish(self.direction(followed, hyperparameters), followed, state, hyperparameters)

    @property
    def is_staged(self) -> bool:
        """Whether an update is `follow`, `direction`, `finish`, so that matrices of other shapes may share the second.

        Not so where a rule has an `update` of its own.
        """
        return type(self).update is SpectralRule.update

    @property
    def bears_padding(self) -> bool:
        """Whether the direction of a matrix with zeros around it is that of the matrix with zeros around it.

        AdaNewton's coefficients depend on the shape, the converged solvers drop or amplify zero singular values by it.
        """
        solver, coefficients = SOLVERS[self.solver], self.solver_coefficients
        base = SOLVERS[coefficients] if isinstance(coefficients, str) else solver
        return solver.is_iterative and not (solver.reads_shape or base.reads_shape)

    def stacked_dtype(self, parameter: Tensor) -> torch.dtype:
        """Return the dtype in which an optimizer stacks what there is to follow: the parameter's, or its solver's own.

        The latter where the solver divides by Frobenius' norm in bfloat16 on a CPU and nothing else reads the stack: it
        is rounded before the norm is taken instead of after, as in torch.optim.Muon, in half the memory.
        """
        fits = parameter.device.type == "cpu" and parameter.dtype == torch.float32 and self.factor(1, 1) is not None
        by_coefficients = SOLVERS[self.solver].takes_bases and self.solver_coefficients not in (None, "minimax")
        is_half = self.arithmetic == "bfloat16" and (SOLVERS[self.solver].divides_by_frobenius or by_coefficients)
        return torch.bfloat16 if fits and is_half else parameter.dtype

    def factor(self, rows: int, columns: int) -> float | None:
        """Return the length of an update where the shape alone decides it; None where `scaled` looks at the matrix."""
        return None

    def follow(self, gradient: Tensor, state: State, hyperparameters: Hyperparameters) -> tuple[Tensor, State]:
        """Return the matrix whose direction is asked for, and the state with what has been accumulated on the way."""
        buffer, followed = self.accumulate(gradient, state["momentum_buffer"], hyperparameters)
        return self.suppress(followed, hyperparameters), {"momentum_buffer": buffer}

    def follow_each(
        self, gradients: list[Tensor], states: list[State], hyperparameters: Hyperparameters, stack: Tensor
    ) -> tuple[Tensor, State]:
        """Do what `follow` does for matrices that lie apart; what it does not return of a state, `advance_` writes.

        Args:
            gradients: One shape [rows, columns]; only read.
            states: Of each; only read, so that a step that fails has changed nothing.
            hyperparameters: As for `update`.
            stack: Memory [count, rows, columns] for what is to follow, of `stacked_dtype`.

        Returns:
            What there is to follow, [count, rows, columns], and the stacked states that are still to be written.
        """
        stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        if stack.dtype == gradients[0].dtype:
            return self.follow(stack_into(stack, gradients), stacked, hyperparameters)
        followed, state = self.follow(torch.stack(gradients), stacked, hyperparameters)
        return stack.copy_(followed), state

    def advance_(self, gradients: list[Tensor], states: list[State], hyperparameters: Hyperparameters) -> None:
        """Write in place what `follow_each` has not returned of the states; nothing by default."""
        return

    def finish(
        self, direction: Tensor, followed: Tensor, state: State, hyperparameters: Hyperparameters
    ) -> tuple[Tensor, State]:
        """Return the update and the new state, from the direction of what `follow` gave, and from its state."""
        return self.scaled(direction, followed), state

    def accumulate(self, gradient: Tensor, buffer: Tensor, hyperparameters: Hyperparameters) -> tuple[Tensor, Tensor]:
        """Return the new momentum buffer and the matrix to follow."""
        return average(buffer, gradient, momentum=hyperparameters["momentum"], nesterov=self.nesterov)

    def suppress(self, matrix: Tensor, hyperparameters: Hyperparameters) -> Tensor:
        """Take the outliers away; none by default."""
        return matrix

    def direction(self, matrix: Tensor, hyperparameters: Hyperparameters, *, lends: bool = False) -> Tensor:
        """Return the polar factor; `lends` as for `polar_factor`."""
        solver = SOLVERS[self.solver]
        iteration = {"steps": hyperparameters["ns_steps"]} if solver.takes_steps else {}
        if solver.is_iterative:
            iteration["eps"] = hyperparameters["eps"]
        if self.l0 is not None:
            iteration["l0"] = self.l0
        elif solver.is_iterative and solver.takes_lowest and self.solver_coefficients in (None, "minimax"):
            iteration["l0"] = MINIMAX_LOWEST_OF_MOMENTA
        return polar_factor(
            matrix,
            solver=self.solver,
            coefficients=self.solver_coefficients,
            compute_dtype=self.arithmetic,
            lends=lends,
            **iteration,
        )

    def scaled(self, direction: Tensor, matrix: Tensor) -> Tensor:
        """Return the direction of `matrix`, its length set in place; the direction belongs to its step alone."""
        factor = self.factor(matrix.shape[-2], matrix.shape[-1])
        if factor is None:
            raise NotImplementedError(f"a rule has a factor or scales by itself: got {type(self).__name__}")
        return direction if factor == 1 else direction.mul_(factor)


def apply_update(parameter: Tensor, update: Tensor, *, lr: float | Tensor, weight_decay: float | Tensor) -> Tensor:
    """Return (1 − lr · weight_decay) · parameter − lr · update, in the parameter's dtype.

    In half precision each of the two is computed in float32 and rounded once, as torch's `mul_` and `sub_` do.
    """
    wide = torch.promote_types(parameter.dtype, torch.float32)
    lr = lr.to(torch.promote_types(lr.dtype, torch.float32)) if isinstance(lr, Tensor) else lr
    decayed = (parameter.to(wide) * (1 - lr * weight_decay)).to(parameter.dtype)
    return (decayed.to(wide) - lr * update.to(wide)).to(parameter.dtype)
