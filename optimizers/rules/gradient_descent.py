"""Plain gradient descent, for every parameter: the theory's baseline, without momentum and without a preconditioner.

    X <- (1 − γ λ) X − γ G

On f(U, V) = ½‖U Vᵀ − M‖² its local rate is 1 − c / κ with κ = σ₁ / σ_r of M, and it leaves a small start after about
log(1 / α) / (γ σ_i) steps, mode by mode; spectral descent's rate depends on neither (Ma, Huang, Chi, Chen, arXiv
2601.13474). Without momentum decoupled decay and an L2 penalty are the same, so torch.optim.SGD takes these steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor

from spectune.optimizers.hyperparameters import lr, table_of, weight_decay
from spectune.optimizers.rules.spectral import Hyperparameters, State


@dataclass(frozen=True)
class GradientDescentRule:
    """How a gradient becomes an update: it is the update. There is no state and nothing to set."""

    def initial_state(self, parameter: Tensor) -> State:
        """Return the state before the first step: none."""
        return {}

    def update(self, gradient: Tensor, state: State, hyperparameters: Hyperparameters) -> tuple[Tensor, State]:
        """Return a copy of the gradient, any shape and dtype, non-finite entries included, and the empty state."""
        return gradient.clone(), {}


GRADIENT_DESCENT_HYPERPARAMETERS: Final = table_of(lr(1e-1), weight_decay(0.0))
