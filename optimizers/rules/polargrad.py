"""PolarGrad: the polar factor at the length of the nuclear norm (Lau, Long, Su, arXiv 2505.21799).

    momentum first      M <- μ M + (1 − μ) G,   U = polar(M),   X <- (1 − γ λ) X − γ ν U,   ν = ⟨M, U⟩
    polar first         U = polar(G),   M <- μ M + (1 − μ) U,   X <- (1 − γ λ) X − γ ν M,   ν = ⟨G, U⟩
    heavy ball          M <- μ M + …  in either

Since ν is the sum of the singular values, the step vanishes with the gradient, as gradient descent's does and Muon's
does not. ν is the inner product, not tr(H) (ibid. section 4.4): an iterative solver that leaves singular values s of U
instead of 1 biases the step by about mean(s)².

`scale="nuclear"` is the paper's. `"nuclear_mean"`, ours and the default, divides ν by min(rows, columns), the mean
singular value, so that one learning rate serves several shapes; the official code's lr 0.02 is 1 at 50 rows.
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
from spectune.optimizers.spelling import refuse_unknown
from spectune.optimizers.stages.momentum import heavy_ball

NUCLEAR_SCALES: Final = ("nuclear", "nuclear_mean")


def nuclear_norm_along(matrix: Tensor, direction: Tensor) -> Tensor:
    """Return ν = ⟨matrix, direction⟩, [..., 1, 1], at least float32: the nuclear norm if the direction is polar."""
    dtype = torch.promote_types(matrix.dtype, torch.float32)
    return (matrix.to(dtype) * direction.to(dtype)).sum(dim=(-2, -1), keepdim=True)


@dataclass(frozen=True, kw_only=True)
class PolarGradRule(SpectralRule):
    """PolarGrad's choice of stages.

    Attributes:
        scale: One of `NUCLEAR_SCALES`.
        polar_first: Whether the momentum averages polar factors instead of gradients.
        heavy_ball: Whether the momentum is the decaying sum instead of the average.
    """

    solver: str = "svd"
    scale: str = "nuclear_mean"
    polar_first: bool = False
    heavy_ball: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown("scale", self.scale, NUCLEAR_SCALES)

    def follow(self, gradient: Tensor, state: State, hyperparameters: Hyperparameters) -> tuple[Tensor, State]:
        """Return the momentum, or the gradient where its direction comes first."""
        return (gradient, state) if self.polar_first else super().follow(gradient, state, hyperparameters)

    def finish(
        self, direction: Tensor, followed: Tensor, state: State, hyperparameters: Hyperparameters
    ) -> tuple[Tensor, State]:
        """Return the update and the new state; the momentum is taken here where it averages directions."""
        if not self.polar_first:
            return super().finish(direction, followed, state, hyperparameters)
        buffer, averaged = self.accumulate(direction, state["momentum_buffer"], hyperparameters)
        return (self._length(followed, direction) * averaged).to(followed.dtype), {"momentum_buffer": buffer}

    def accumulate(self, gradient: Tensor, buffer: Tensor, hyperparameters: Hyperparameters) -> tuple[Tensor, Tensor]:
        """Return the new momentum buffer and the matrix to follow."""
        if not self.heavy_ball:
            return super().accumulate(gradient, buffer, hyperparameters)
        return heavy_ball(buffer, gradient, momentum=hyperparameters["momentum"], nesterov=self.nesterov)

    def scaled(self, direction: Tensor, matrix: Tensor) -> Tensor:
        """Multiply by the nuclear norm of the matrix, or by its mean singular value."""
        return (self._length(matrix, direction) * direction).to(direction.dtype)

    def _length(self, matrix: Tensor, direction: Tensor) -> Tensor:
        norm = nuclear_norm_along(matrix, direction)
        return norm / min(matrix.shape[-2:]) if self.scale == "nuclear_mean" else norm


POLARGRAD_HYPERPARAMETERS: Final = table_of(
    declare.lr(1.0),
    declare.weight_decay(0.0),
    declare.MOMENTUM,
    declare.NS_STEPS,
    declare.EPS,
    Hyperparameter(
        name="scale",
        kind="choice",
        default="nuclear_mean",
        choices=NUCLEAR_SCALES,
        sentence="Length of a step: the sum of the singular values, or their mean.",
    ),
    Hyperparameter(
        name="polar_first",
        kind="boolean",
        default=False,
        sentence="Whether the momentum averages polar factors instead of gradients.",
    ),
    Hyperparameter(
        name="heavy_ball",
        kind="boolean",
        default=False,
        sentence="Whether the momentum is a decaying sum instead of an average.",
    ),
    declare.nesterov(False),
    declare.solver("svd"),
    declare.L0,
    declare.COMPUTE_DTYPE,
)


class PolarGrad(SpectralOptimizer):
    """PolarGrad for matrices, AdamW for the rest.

    The official code stops its QDWH solver after two steps, unconverged; the default here is exact, so learning rates
    of published curves do not carry over: on factors of 500×5 its step is about .56 times as long as the exact one.
    `solver="qdwh", ns_steps=2` takes the official code's two steps from the official start, to reproduce such curves;
    with the default `ns_steps`, or an `l0`, it is ours and converges. `svd` is the default
    because it gives the compact factor of a rank-deficient gradient in float32, where QDWH turns rounding noise into
    directions (docs/decisions/0102); at full rank QDWH is more exact and mostly faster. Groups with
    `algorithm="adamw"` are described at `SpectralOptimizer`.

    A zero gradient, and with it a zero momentum, gives no update; a non-finite one a non-finite update of its own
    matrix. Singular values s of the direction bias a step by about mean(s)², so with an iterative solver it is off by
    twice the error that `polar` lists; `svd` and `qdwh` leave rounding.

    Args:
        params: Matrices (two dimensions each), or groups.
        lr: Learning rate, in units of an inverse curvature; a tensor of one element is read on its device.
        weight_decay: Decoupled decay, by the unscaled learning rate.
        momentum: In [0, 1).
        ns_steps: Iterations of an iterative solver.
        eps: Norm below which an iterative solver gives less than a full direction.
        scale: One of `NUCLEAR_SCALES`.
        polar_first: Whether the momentum averages polar factors instead of gradients.
        heavy_ball: Whether the momentum is a decaying sum instead of an average.
        nesterov: Whether to look ahead along the momentum.
        solver: A key of `polar.SOLVERS`.
        l0: Where `minimax`, `qdwh` and `zolo_pd` begin to converge, as for `polar.polar_factor`; None is their default.
        compute_dtype: As for `polar.polar_factor`.
        maximize: Ascend instead of descend.
        foreach: Stack equal shapes, the default; False takes one matrix at a time.
        capturable: Keep AdamW's step counts on the device, for CUDA graphs.
        differentiable: Not supported.

    Raises:
        ValueError: An illegal value, or a parameter that is not a matrix, with its shape.
    """

    rule_type: ClassVar[type[SpectralRule]] = PolarGradRule
    hyperparameters: ClassVar[dict[str, Hyperparameter]] = POLARGRAD_HYPERPARAMETERS

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        ns_steps: int = 5,
        eps: float = 1e-7,
        scale: str = "nuclear_mean",
        polar_first: bool = False,
        heavy_ball: bool = False,
        nesterov: bool = False,
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
                "momentum": momentum,
                "ns_steps": ns_steps,
                "eps": eps,
                "scale": scale,
                "polar_first": polar_first,
                "heavy_ball": heavy_ball,
                "nesterov": nesterov,
                "solver": solver,
                "l0": l0,
                "compute_dtype": compute_dtype,
            },
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
        )
