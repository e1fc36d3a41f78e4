"""Muon: momentum, made orthogonal by Newton-Schulz (Jordan et al. 2024), in the conventions of torch.optim.Muon.

    B <- μ B + (1 − μ) G
    V  = μ B + (1 − μ) G  with Nesterov, else B
    X <- (1 − γ λ) X − γ s polar(V)

The scale s makes one learning rate γ serve matrices of different shapes:

    original            sqrt(max(1, rows / columns))  Jordan; torch's default
    match_rms_adamw     0.2 sqrt(max(rows, columns))  Moonlight (arXiv 2502.16982): entries as large as AdamW's
    rms_to_rms          sqrt(rows / columns)          unit norm from RMS to RMS (arXiv 2409.20325): fits all widths;
                                                      rows are outputs, as in nn.Linear
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from torch import Tensor
from torch.optim.optimizer import ParamsT

from spectune.optimizers import hyperparameters as declare
from spectune.optimizers.hyperparameters import Hyperparameter, table_of
from spectune.optimizers.polar.solvers import Coefficients
from spectune.optimizers.rules.spectral import Hyperparameters, SpectralRule, State
from spectune.optimizers.rules.spectral_optimizer import SpectralOptimizer
from spectune.optimizers.spelling import refuse_unknown
from spectune.optimizers.stages.momentum import average_, average_into


def original_scale(rows: int, columns: int) -> float:
    """Return Jordan's factor: a tall matrix moves each of its columns as far as a square one."""
    return math.sqrt(max(1.0, rows / max(1, columns)))


def match_rms_adamw_scale(rows: int, columns: int) -> float:
    """Return Moonlight's factor: the update of a full-rank matrix has RMS 0.2, as AdamW's has in practice."""
    return 0.2 * math.sqrt(max(rows, columns))


def rms_to_rms_scale(rows: int, columns: int) -> float:
    """Return the factor that lets an input of RMS 1 change the output by at most RMS 1."""
    return math.sqrt(rows / max(1, columns))


SCALES: Final[dict[str, Callable[[int, int], float]]] = {
    "original": original_scale,
    "match_rms_adamw": match_rms_adamw_scale,
    "rms_to_rms": rms_to_rms_scale,
}


@dataclass(frozen=True, kw_only=True)
class MuonRule(SpectralRule):
    """Muon's choice of stages.

    Attributes:
        adjust_lr_fn: A key of `SCALES`; None, as in torch, is `original`.
        ns_coefficients: One triple (a, b, c) or one a step; None for the solver's own.
    """

    solver: str = "newton_schulz"
    compute_dtype: str | None = None
    nesterov: bool = True
    adjust_lr_fn: str | None = None
    ns_coefficients: Coefficients | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adjust_lr_fn is not None:
            refuse_unknown("adjust_lr_fn", self.adjust_lr_fn, SCALES)

    @property
    def solver_coefficients(self) -> Coefficients | None:
        """The solver's coefficients, None for its own."""
        return self.ns_coefficients

    def follow_each(
        self, gradients: list[Tensor], states: list[State], hyperparameters: Hyperparameters, stack: Tensor
    ) -> tuple[Tensor, State]:
        """Do what `follow` does for matrices that lie apart; `advance_` moves their momenta."""
        buffers, momentum = [state["momentum_buffer"] for state in states], hyperparameters["momentum"]
        average_into(buffers, gradients, momentum=momentum, nesterov=self.nesterov, followed=stack)
        return self.suppress(stack, hyperparameters), {}

    def advance_(self, gradients: list[Tensor], states: list[State], hyperparameters: Hyperparameters) -> None:
        """Move the momenta."""
        average_([state["momentum_buffer"] for state in states], gradients, momentum=hyperparameters["momentum"])

    def factor(self, rows: int, columns: int) -> float:
        """Return the factor of the shape."""
        return SCALES[self.adjust_lr_fn or "original"](rows, columns)


MUON_HYPERPARAMETERS: Final = table_of(
    declare.lr(1e-3),
    declare.weight_decay(0.1),
    declare.MOMENTUM,
    declare.nesterov(True),
    declare.NS_STEPS,
    declare.EPS,
    Hyperparameter(
        name="adjust_lr_fn",
        kind="choice",
        default=None,
        choices=tuple(SCALES),
        sentence="How the learning rate depends on the shape of a matrix; by default as in original.",
    ),
    declare.solver("newton_schulz"),
    declare.L0,
    replace(
        declare.COMPUTE_DTYPE,
        default=None,
        sentence="Arithmetic of the polar solver; by default bfloat16, torch's, for newton_schulz, else auto.",
    ),
)


class Muon(SpectralOptimizer):
    """Muon for matrices, AdamW for the rest.

    With its defaults it follows torch.optim.Muon to 1e-3 in a trajectory at lr 1e-3, on every device, for it takes the
    same arithmetic: parameters, momentum and step in the parameters' dtype; the iteration on entries rounded to
    bfloat16, each product summed in float32 and rounded once. The order of a sum is the library's, so the two agree up
    to such roundings, not bit for bit; a processor without bfloat16 instructions takes the same products in float32
    and rounds them (`half_products`). `compute_dtype="float32"` rounds nothing. One exception: with bfloat16 parameters
    and `nesterov=False` torch overwrites its momentum buffer with the orthogonal factor; this one does not. Groups with
    `algorithm="adamw"` are described at `SpectralOptimizer`.

    Parameters are [rows, columns], real floating point of any precision; the state of each is `momentum_buffer`, of its
    shape and dtype. Five classic steps send singular values of at least 3e-3 ‖V‖_F into [.68, 1.21], smaller ones to up
    to 485 times what they were; other solvers, and how exact they are, are in `polar`. A zero momentum gives no update,
    so only decay moves the parameter; a non-finite gradient makes its own matrix non-finite, and its momentum from then
    on, and no other matrix.

    Arguments up to `adjust_lr_fn` are torch's, in torch's order.

    Args:
        params: Matrices (two dimensions each), or groups.
        lr: Learning rate; a tensor of one element is read on its device.
        weight_decay: Decoupled decay.
        momentum: In [0, 1).
        nesterov: Whether to look ahead along the momentum.
        ns_coefficients: One triple (a, b, c), or one a step; None for the solver's own.
        eps: Norm below which a matrix moves less than a full step.
        ns_steps: Iterations of the solver.
        adjust_lr_fn: A key of `SCALES`; None, as in torch, is `original`.
        solver: A key of `polar.SOLVERS`.
        l0: Where `minimax`, `qdwh` and `zolo_pd` begin to converge, as for `polar.polar_factor`; None is their default.
        compute_dtype: As for `polar.polar_factor`; None is bfloat16 for `newton_schulz`, `auto` for other solvers.
        maximize: Ascend instead of descend.
        foreach: Stack equal shapes, the default; False takes one matrix at a time.
        capturable: Keep AdamW's step counts on the device, for CUDA graphs.
        differentiable: Not supported.

    Raises:
        ValueError: An illegal value, or a parameter that is not a matrix, with its shape; from `step`, a gradient
            that is sparse or of another dtype.
    """

    rule_type: ClassVar[type[SpectralRule]] = MuonRule
    hyperparameters: ClassVar[dict[str, Hyperparameter]] = MUON_HYPERPARAMETERS

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: Coefficients | None = None,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        solver: str = "newton_schulz",
        l0: float | None = None,
        compute_dtype: str | None = None,
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
                "ns_coefficients": ns_coefficients,
                "ns_steps": ns_steps,
                "eps": eps,
                "adjust_lr_fn": adjust_lr_fn,
                "solver": solver,
                "l0": l0,
                "compute_dtype": compute_dtype,
            },
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
        )
