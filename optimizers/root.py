"""ROOT: momentum without its outliers, made orthogonal with coefficients for the shape (He et al., arXiv 2511.20626).

    M <- μ M + G
    V  = μ M + G  with Nesterov, else M
    B  = clip(V, −ε, ε),   ε = quantile_q(|V|) of the matrix at this step
    X <- (1 − γ λ) X − γ 0.2 sqrt(max(rows, columns)) AdaNewton(B)

The paper's listing has no Nesterov; its official code has, and is followed here, with the percentile q, there fixed at
0.9, as a hyperparameter. M itself is never clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from torch import Tensor
from torch.optim.optimizer import ParamsT

from optimizers import hyperparameters as declare
from optimizers.hyperparameters import Hyperparameter, table_of
from optimizers.momentum import heavy_ball
from optimizers.muon import match_rms_adamw_scale
from optimizers.outliers import QUANTILES, suppress_outliers
from optimizers.spectral import Hyperparameters, SpectralRule
from optimizers.spectral_optimizer import SpectralOptimizer
from optimizers.spelling import refuse_unknown


@dataclass(frozen=True, kw_only=True)
class RootRule(SpectralRule):
    """ROOT's choice of stages.

    Attributes:
        quantile: How the percentile is found: one of `outliers.QUANTILES`.
    """

    solver: str = "adanewton"
    nesterov: bool = True
    quantile: str = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown("quantile", self.quantile, QUANTILES)

    def accumulate(self, gradient: Tensor, buffer: Tensor, hyperparameters: Hyperparameters) -> tuple[Tensor, Tensor]:
        """Give the new momentum buffer and the matrix to follow."""
        return heavy_ball(buffer, gradient, momentum=hyperparameters["momentum"], nesterov=self.nesterov)

    def suppress(self, matrix: Tensor, hyperparameters: Hyperparameters) -> Tensor:
        """Clip at the percentile of the magnitudes."""
        return suppress_outliers(matrix, percentile=hyperparameters["percentile"], quantile=self.quantile)

    def scaled(self, direction: Tensor, matrix: Tensor) -> Tensor:
        """Make the update as large as AdamW's."""
        return direction * match_rms_adamw_scale(matrix.shape[-2], matrix.shape[-1])


ROOT_HYPERPARAMETERS: Final = table_of(
    declare.lr(1e-3),
    declare.weight_decay(0.1),
    declare.MOMENTUM,
    declare.nesterov(True),
    declare.NS_STEPS,
    declare.EPS,
    Hyperparameter(
        name="percentile",
        kind="float",
        default=0.9,
        low=0,
        high=1,
        low_open=True,
        elementwise=True,
        sentence="Share of a matrix's magnitudes that is left as it is; what is larger is clipped. 1 is no clipping.",
    ),
    Hyperparameter(
        name="quantile",
        kind="choice",
        default="exact",
        choices=QUANTILES,
        sentence="Whether the percentile is read from all entries of a matrix, or from about 4096 of them.",
    ),
    declare.solver("adanewton"),
    declare.COMPUTE_DTYPE,
)


class Root(SpectralOptimizer):
    """ROOT for matrices, AdamW for the rest.

    Groups with `algorithm="adamw"` are described at `SpectralOptimizer`.

    Args:
        params: Matrices (two dimensions each), or groups.
        lr: Learning rate; a tensor of one element is read on its device.
        weight_decay: Decoupled decay.
        momentum: In [0, 1).
        nesterov: Whether to look ahead along the momentum.
        ns_steps: Iterations of the solver; the published coefficients are for 5.
        eps: Norm below which a matrix moves less than a full step.
        percentile: In (0, 1]; magnitudes above this percentile are clipped to it.
        quantile: `exact`, or `sampled` from about 4096 entries: the share that is clipped is then off by 0.005 at 0.9.
        solver: A key of `polar.SOLVERS`.
        compute_dtype: As for `polar.polar_factor`.
        maximize: Ascend instead of descend.
        foreach: Stack equal shapes, the default; False takes one matrix at a time.
        capturable: Keep AdamW's step counts on the device, for CUDA graphs.
        differentiable: Not supported.

    Raises:
        ValueError: An illegal value, or a parameter that is not a matrix, with its shape.
    """

    rule_type: ClassVar[type[SpectralRule]] = RootRule
    hyperparameters: ClassVar[dict[str, Hyperparameter]] = ROOT_HYPERPARAMETERS

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        *,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        eps: float = 1e-7,
        percentile: float = 0.9,
        quantile: str = "exact",
        solver: str = "adanewton",
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
                "nesterov": nesterov,
                "ns_steps": ns_steps,
                "eps": eps,
                "percentile": percentile,
                "quantile": quantile,
                "solver": solver,
                "compute_dtype": compute_dtype,
            },
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
        )
