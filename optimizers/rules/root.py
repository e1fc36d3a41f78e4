"""ROOT: momentum without its outliers, made orthogonal with coefficients for the shape (He et al., arXiv 2511.20626).

    M <- μ M + G
    V  = μ M + G  with Nesterov, else M
    B  = clip(V, −ε, ε),   ε = quantile_q(|V|) of the matrix at this step
    X <- (1 − γ λ) X − γ 0.2 sqrt(max(rows, columns)) AdaNewton(B)

The paper's listing has no Nesterov; its official code has, and is followed here, with the percentile q, there fixed at
0.9, as a hyperparameter. M itself is never clipped. AdaNewton is Newton-Schulz with coefficients for the shape. The
paper speaks of learning them along with the model, its code holds constants for four. Here they are, by `coefficients`,

    table         the published constants; for every other shape, as in the official code, the classic triple
    calibrated    what `calibration.calibrate` last fitted to the shape, read from disk at the first step of a matrix
    online        the table's, refitted to each matrix of its own every `refit_every` steps (`triple_fit`)

and in the last two part of the state: a checkpoint goes on with them, a member of a population has its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Final

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from spectune.optimizers import hyperparameters as declare
from spectune.optimizers.hyperparameters import Hyperparameter, table_of
from spectune.optimizers.parameters.matrix_views import matrices_of
from spectune.optimizers.polar.coefficients import adanewton_triple
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.rules.calibration import calibrated_triples
from spectune.optimizers.rules.muon import match_rms_adamw_scale
from spectune.optimizers.rules.spectral import Hyperparameters, SpectralRule, State
from spectune.optimizers.rules.spectral_optimizer import SPECTRAL, SpectralOptimizer
from spectune.optimizers.rules.triple_fit import refitted
from spectune.optimizers.scratch import scratch
from spectune.optimizers.spelling import refuse_unknown
from spectune.optimizers.stages.momentum import heavy_ball, heavy_ball_, heavy_ball_into
from spectune.optimizers.stages.outliers import QUANTILES, suppress_outliers

COEFFICIENTS: Final = ("table", "calibrated", "online")


@dataclass(frozen=True, kw_only=True)
class RootRule(SpectralRule):
    """ROOT's choice of stages.

    Attributes:
        quantile: How the percentile is found: one of `outliers.QUANTILES`.
        coefficients: Where AdaNewton's are from: one of `COEFFICIENTS`.
        refit_every: Steps between two fits of `online`.
    """

    solver: str = "adanewton"
    nesterov: bool = True
    quantile: str = "exact"
    coefficients: str = "table"
    refit_every: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown("quantile", self.quantile, QUANTILES)
        refuse_unknown("coefficients", self.coefficients, COEFFICIENTS)
        if self.coefficients != "table" and self.solver != "adanewton":
            raise ValueError(f"coefficients={self.coefficients!r} are for solver 'adanewton': got {self.solver!r}")
        if self.refit_every < 1:
            raise ValueError(f"refit_every must be at least 1: got {self.refit_every!r}")

    def initial_state(self, parameter: Tensor) -> State:
        """Return the state before the first step: the momentum; by mode, `triples` [..., n, 3] and `step` [..., 1, 1].

        The triples are of the parameter's dtype, at least float32; the step, which only `online` counts, is float32 on
        the host, where it is read.

        Raises:
            ValueError: Nothing is calibrated for the shape.
        """
        state = super().initial_state(parameter)
        if self.coefficients == "table":
            return state
        *batch, rows, columns = parameter.shape
        refits = self.coefficients == "online"
        known = [adanewton_triple(rows, columns)] if refits else calibrated_triples((rows, columns))
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        state["triples"] = torch.tensor(known, dtype=dtype, device=parameter.device).repeat(*batch, 1, 1)
        if refits:
            state["step"] = torch.zeros(*batch, 1, 1, dtype=torch.float32, device="cpu")
        return state

    def update(self, gradient: Tensor, state: State, hyperparameters: Hyperparameters) -> tuple[Tensor, State]:
        """Turn a gradient into an update; `online` refits first where it is time, to what it will iterate on."""
        if self.coefficients == "table":
            return super().update(gradient, state, hyperparameters)
        kept, new = self.follow(gradient, state, hyperparameters)
        fit = self._fit(kept, state, hyperparameters)
        direction = self.direction(kept, {**hyperparameters, "triples": fit["triples"]})
        return self.finish(direction, kept, {**new, **fit}, hyperparameters)

    def state_shapes(self, shape: torch.Size) -> dict[str, torch.Size | None]:
        """Return the entries of a state, with their shapes where the parameter's decides them."""
        own: dict[str, torch.Size | None] = {"triples": None} if self.coefficients != "table" else {}
        return super().state_shapes(shape) | own | ({"step": None} if self.coefficients == "online" else {})

    @property
    def is_staged(self) -> bool:
        """Whether an update is `follow`, `direction`, `finish`; triples of each matrix's own come between these."""
        return self.coefficients == "table"

    def follow_each(
        self, gradients: list[Tensor], states: list[State], hyperparameters: Hyperparameters, stack: Tensor
    ) -> tuple[Tensor, State]:
        """Do what `follow` does for matrices that lie apart; `advance_` moves their momenta."""
        is_rounded = stack.dtype != gradients[0].dtype
        followed = scratch(stack.shape, "root.followed", like=gradients[0]) if is_rounded else stack
        buffers, momentum = [state["momentum_buffer"] for state in states], hyperparameters["momentum"]
        heavy_ball_into(buffers, gradients, momentum=momentum, nesterov=self.nesterov, followed=followed)
        suppress_outliers(followed, percentile=hyperparameters["percentile"], quantile=self.quantile, out=followed)
        return (stack.copy_(followed) if is_rounded else stack), {}

    def advance_(self, gradients: list[Tensor], states: list[State], hyperparameters: Hyperparameters) -> None:
        """Move the momenta."""
        if self.is_staged:  # else `update` has given them
            heavy_ball_([state["momentum_buffer"] for state in states], gradients, momentum=hyperparameters["momentum"])

    def direction(self, matrix: Tensor, hyperparameters: Hyperparameters, *, lends: bool = False) -> Tensor:
        """Return the polar factor, by the matrices' own `triples` where they have some."""
        if self.coefficients == "table":
            return super().direction(matrix, hyperparameters, lends=lends)
        return polar_factor(
            matrix,
            solver=self.solver,
            steps=hyperparameters["ns_steps"],
            coefficients=hyperparameters["triples"],
            eps=hyperparameters["eps"],
            compute_dtype=self.arithmetic,
            lends=lends,
        )

    def _fit(self, matrix: Tensor, state: State, hyperparameters: Hyperparameters) -> State:
        """Return the triples to use, and where they are refitted the step."""
        if self.coefficients != "online":
            return {"triples": state["triples"]}
        step = state["step"] + 1
        due = (step % self.refit_every == 0).expand(*matrix.shape[:-2], 1, 1).flatten()
        triples = state["triples"].reshape(-1, 1, 3).clone()
        if due.any():
            place = due.to(matrix.device)
            steps = hyperparameters["ns_steps"]
            if isinstance(steps, Tensor):
                steps = steps.to(matrix.device).expand(*matrix.shape[:-2], 1, 1).flatten()[place]
            flat = matrix.reshape(-1, *matrix.shape[-2:])
            triples[place] = refitted(flat[place], triples[place], steps=steps)
        return {"triples": triples.reshape(state["triples"].shape), "step": step}

    def accumulate(self, gradient: Tensor, buffer: Tensor, hyperparameters: Hyperparameters) -> tuple[Tensor, Tensor]:
        """Return the new momentum buffer and the matrix to follow."""
        return heavy_ball(buffer, gradient, momentum=hyperparameters["momentum"], nesterov=self.nesterov)

    def suppress(self, matrix: Tensor, hyperparameters: Hyperparameters) -> Tensor:
        """Clip at the percentile of the magnitudes."""
        return suppress_outliers(matrix, percentile=hyperparameters["percentile"], quantile=self.quantile)

    def factor(self, rows: int, columns: int) -> float:
        """Make the update as large as AdamW's."""
        return match_rms_adamw_scale(rows, columns)


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
        sentence="Whether the percentile is read from all entries of a matrix, or from an eighth of them.",
    ),
    Hyperparameter(
        name="coefficients",
        kind="choice",
        default="table",
        choices=COEFFICIENTS,
        sentence="Whether coefficients are the published ones, calibrated to the shape, or refitted in training.",
    ),
    Hyperparameter(
        name="refit_every",
        kind="integer",
        default=100,
        low=1,
        sentence="Steps between two fits of online coefficients to the momentum of each matrix.",
    ),
    declare.solver("adanewton"),
    declare.L0,
    declare.COMPUTE_DTYPE,
)


class Root(SpectralOptimizer):
    """ROOT for matrices, AdamW for the rest.

    Groups with `algorithm="adamw"` are described at `SpectralOptimizer`.

    Shapes, dtypes and a zero or non-finite gradient as for `Muon`; where most entries of V are zero, ε is zero and
    nothing is clipped. How exact AdaNewton is, shape by shape, stands beside `coefficients.ROOT_TRIPLES`.

    Args:
        params: Matrices (two dimensions each), or groups.
        lr: Learning rate; a tensor of one element is read on its device.
        weight_decay: Decoupled decay.
        momentum: In [0, 1).
        nesterov: Whether to look ahead along the momentum.
        ns_steps: Iterations of the solver; published and calibrated coefficients are for 5, online ones for as many.
        eps: Norm below which a matrix moves less than a full step.
        percentile: In (0, 1]; magnitudes above this percentile are clipped to it.
        quantile: `exact`, or `sampled` from an eighth of the entries, between 384 and 4096 of them: at 0.9 the share
            that is clipped is then off by a standard deviation of 0.015 to 0.005.
        coefficients: `table`, `calibrated` or `online`, as above; the latter two are for the solver `adanewton`.
        refit_every: Steps between two fits of `online`, each as long as ten steps of 64×64 or two of 256×256.
        solver: A key of `polar.SOLVERS`.
        l0: Where `minimax`, `qdwh` and `zolo_pd` begin to converge, as for `polar.polar_factor`; None is their default.
        compute_dtype: As for `polar.polar_factor`.
        maximize: Ascend instead of descend.
        foreach: Stack equal shapes, the default; False takes one matrix at a time.
        capturable: Keep AdamW's step counts on the device, for CUDA graphs.
        differentiable: Not supported.

    Raises:
        ValueError: As `Muon`, or a parameter of no calibrated shape.
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
        coefficients: str = "table",
        refit_every: int = 100,
        solver: str = "adanewton",
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
                "nesterov": nesterov,
                "ns_steps": ns_steps,
                "eps": eps,
                "percentile": percentile,
                "quantile": quantile,
                "coefficients": coefficients,
                "refit_every": refit_every,
                "solver": solver,
                "l0": l0,
                "compute_dtype": compute_dtype,
            },
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state; torch would round triples to the dtype of their parameter, here they keep theirs."""
        super().load_state_dict(state_dict)
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        here = chain.from_iterable(group["params"] for group in self.param_groups)
        for number, parameter in zip(saved, here, strict=True):
            triples = state_dict["state"].get(number, {}).get("triples")
            if triples is not None:
                self.state[parameter]["triples"] = triples.to(parameter.device, copy=True)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if group["algorithm"] != SPECTRAL:
            return
        if group["coefficients"] == "online" and group["capturable"]:
            raise ValueError("coefficients='online' waits for the host, which a graph cannot: got capturable=True")

    def _check_new_group(self, group: dict[str, Any]) -> None:
        if group["algorithm"] == SPECTRAL and group["coefficients"] == "calibrated":
            matrices = chain.from_iterable(matrices_of(group, parameter) for parameter in group["params"])
            for rows, columns in dict.fromkeys(tuple(matrix.shape) for matrix in matrices):
                calibrated_triples((rows, columns))
