"""AdamW (Loshchilov, Hutter, arXiv 1711.05101, algorithm 2), for every parameter that is not a matrix for us.

    m <- β₁ m + (1 − β₁) g,    v <- β₂ v + (1 − β₂) g²
    x <- (1 − γ λ) x − γ (m / (1 − β₁ᵗ)) / (sqrt(v / (1 − β₂ᵗ)) + ε)

`AdamWRule` is the functional stage, on tensors with any leading dimensions. `step_adamw` is a step of a parameter group
through torch's own implementation, with its state names; a test holds the two together.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from spectune.optimizers.foreach import has_half_on_cpu
from spectune.optimizers.hyperparameters import Hyperparameter, lr, table_of, weight_decay
from spectune.optimizers.rules.spectral import Hyperparameters, State


@dataclass(frozen=True)
class AdamWRule:
    """How a gradient becomes an update. Hyperparameters: `betas`, a pair, and `eps`; numbers or tensors."""

    def initial_state(self, parameter: Tensor) -> State:
        """Return the state before the first step; `step` counts in float32, as torch's does."""
        return {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }

    def update(self, gradient: Tensor, state: State, hyperparameters: Hyperparameters) -> tuple[Tensor, State]:
        """Turn a gradient into what `spectral.apply_update` subtracts, times the learning rate.

        Args:
            gradient: Any shape.
            state: From `initial_state` or the update before. `step` may be a tensor that broadcasts, for members that
                began at different times.
            hyperparameters: `betas` and `eps`; others are passed over. Betas that are tensors are best given in
                float64, for 1 − 0.999 in float32 has lost five digits.

        Returns:
            The update, with shape and dtype of the gradient, and the new state.
        """
        beta1, beta2 = hyperparameters["betas"]
        dtype = gradient.dtype
        step, gradient = state["step"] + 1, gradient.to(torch.promote_types(dtype, torch.float32))
        mean = state["exp_avg"].to(gradient.dtype).lerp(gradient, _like(1 - beta1, gradient))
        square = state["exp_avg_sq"].to(gradient.dtype) * _like(beta2, gradient)
        square = square + _like(1 - beta2, gradient) * gradient.square()
        # The powers are taken in float64, exponents too: in float32 1 − 0.999¹ is wrong by 1e-5 of itself.
        mean_correction = (1 - _as_double(beta1, step) ** step.double()).to(mean.dtype)
        square_correction = (1 - _as_double(beta2, step) ** step.double()).to(mean.dtype)
        denominator = square.sqrt() / square_correction.sqrt() + hyperparameters["eps"]
        update = (mean / mean_correction / denominator).to(dtype)
        return update, {"step": step, "exp_avg": mean.to(dtype), "exp_avg_sq": square.to(dtype)}


ADAMW_BETAS: Final = Hyperparameter(
    name="betas",
    kind="betas",
    default=(0.9, 0.999),
    elementwise=True,
    sentence="How much of the past the means of gradients and of their squares keep each step.",
)
ADAMW_EPS: Final = Hyperparameter(
    name="eps",
    kind="float",
    default=1e-8,
    low=0,
    elementwise=True,
    sentence="Added to the root of the mean square.",
)
ADAMW_HYPERPARAMETERS: Final = table_of(lr(1e-3), weight_decay(1e-2), ADAMW_BETAS, ADAMW_EPS)

# What ROOT's official code and most language models use beside a spectral optimizer.
BESIDE_MATRICES: Final[dict[str, Any]] = {"betas": (0.9, 0.95), "eps": 1e-8}


def begin_adamw(group: dict[str, Any], state: defaultdict[Tensor, Any]) -> None:
    """Initialize the state of every parameter of the group that has a gradient and no state yet."""
    for parameter in group["params"]:
        if parameter.grad is not None and not state[parameter]:
            state[parameter].update(AdamWRule().initial_state(parameter))
            if not group["capturable"]:  # on the host: nothing to wait for
                state[parameter]["step"] = torch.zeros((), dtype=torch.float32, device="cpu")


def step_adamw(group: dict[str, Any], state: defaultdict[Tensor, Any]) -> None:
    """Update every parameter of the group that has a gradient, in place; `begin_adamw` has made the states."""
    parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
    beta1, beta2 = group["betas"]
    foreach = None if isinstance(group["lr"], Tensor) else group["foreach"]
    adamw(
        parameters,
        [parameter.grad for parameter in parameters],
        [state[parameter]["exp_avg"] for parameter in parameters],
        [state[parameter]["exp_avg_sq"] for parameter in parameters],
        [],
        [state[parameter]["step"] for parameter in parameters],
        foreach=False if has_half_on_cpu(parameters) else foreach,  # torch's own rounds its numbers there
        capturable=group["capturable"],
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=group["maximize"],
    )


def _like(value: float | Tensor, gradient: Tensor) -> float | Tensor:
    return value.to(gradient.dtype) if isinstance(value, Tensor) else value


def _as_double(beta: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(beta, dtype=torch.float64, device=like.device)
