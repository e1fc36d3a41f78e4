"""Spectral descent: the exact polar factor of the gradient, without momentum; the simplified Muon of the theory.

    X <- (1 − γ λ) X − γ U Vᵀ,    G = U Σ Vᵀ compact

Ma, Huang, Chi and Chen (arXiv 2601.13474) analyse it on matrix factorisation and on in-context learning of linear
attention: where the gradient's singular vectors stay aligned every singular direction moves by γ a step whatever its
σ, so the number of steps does not grow with the condition number, as gradient descent's does. Since the step is of
unit length in the spectral norm, a constant γ ends in a ball of radius γ: decay it geometrically (γ_t = γ₀ qᵗ, with
γ₀ / (1 − q) above the distance to go). Singular values up to max(rows, columns) · eps · σ₁ do not move at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from spectune.optimizers import hyperparameters as declare
from spectune.optimizers.hyperparameters import Hyperparameter, table_of
from spectune.optimizers.rules.spectral import Hyperparameters, SpectralRule, State
from spectune.optimizers.rules.spectral_optimizer import SpectralOptimizer


@dataclass(frozen=True, kw_only=True)
class SpectralDescentRule(SpectralRule):
    """Spectral descent's choice of stages: the direction alone. Hyperparameters of solvers other than `svd` are read.

    There is no state; a zero gradient gives no update, a non-finite one a non-finite update of its own matrix.
    """

    solver: str = "svd"

    def initial_state(self, parameter: Tensor) -> State:
        """Return the state before the first step: none."""
        return {}

    def state_shapes(self, shape: torch.Size) -> dict[str, torch.Size | None]:
        """Return the entries of a state: none."""
        return {}

    def follow(self, gradient: Tensor, state: State, hyperparameters: Hyperparameters) -> tuple[Tensor, State]:
        """Return the gradient, [..., rows, columns], and the empty state."""
        return gradient, {}

    def scaled(self, direction: Tensor, matrix: Tensor) -> Tensor:
        """Leave the length as it is: singular values of one, whatever the shape."""
        return direction


SPECTRAL_DESCENT_HYPERPARAMETERS: Final = table_of(
    declare.lr(1e-2),
    declare.weight_decay(0.0),
    declare.NS_STEPS,
    declare.EPS,
    declare.solver("svd"),
    declare.L0,
    declare.COMPUTE_DTYPE,
)


class SpectralDescent(SpectralOptimizer):
    """Spectral descent for matrices, AdamW for the rest.

    Groups with `algorithm="adamw"` are described at `SpectralOptimizer`.

    Args:
        params: Matrices (two dimensions each), or groups.
        lr: Learning rate, the length of a step in the spectral norm; a tensor of one element is read on its device.
        weight_decay: Decoupled decay.
        ns_steps: Iterations of the solver; `svd` reads none.
        eps: Norm below which a matrix moves less than a full step; `svd` reads none.
        solver: A key of `polar.SOLVERS`; the theory's is `svd`.
        l0: Where `minimax`, `qdwh` and `zolo_pd` begin to converge, as for `polar.polar_factor`; None is their default.
        compute_dtype: As for `polar.polar_factor`.
        maximize: Ascend instead of descend.
        foreach: Stack equal shapes, the default; False takes one matrix at a time.
        capturable: Keep AdamW's step counts on the device, for CUDA graphs.
        differentiable: Not supported.

    Raises:
        ValueError: An illegal value, or a parameter that is not a matrix, with its shape.
    """

    rule_type: ClassVar[type[SpectralRule]] = SpectralDescentRule
    hyperparameters: ClassVar[dict[str, Hyperparameter]] = SPECTRAL_DESCENT_HYPERPARAMETERS

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        *,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
        eps: float = 1e-7,
        solver: str = "svd",
        l0: float | None = None,
        compute_dtype: str = "auto",
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "ns_steps": ns_steps,
                "eps": eps,
                "solver": solver,
                "l0": l0,
                "compute_dtype": compute_dtype,
            },
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
        )
