"""What a hyperparameter is: its kind, default, legal range, and whether trials that train together may differ in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from torch import Tensor

from spectune.optimizers.polar.solvers import COMPUTE_DTYPES, SOLVERS
from spectune.optimizers.stages.outliers import percentile_problem

Kind = Literal["float", "integer", "boolean", "choice", "betas"]


@dataclass(frozen=True, kw_only=True)
class Hyperparameter:
    """One hyperparameter of an optimizer.

    Attributes:
        name: As in the constructor.
        kind: `betas` is a pair of floats in [0, 1).
        default: None where it depends on others; the sentence says how.
        low: Smallest legal value of a number, None where open.
        high: Largest legal value of a number, None where open.
        low_open: Whether `low` itself is illegal.
        high_open: Whether `high` itself is illegal.
        choices: The legal values of a choice.
        elementwise: Whether it may be a tensor with a value for each matrix of a batch; else it is structural.
        sentence: What it does.
    """

    name: str
    kind: Kind
    default: Any
    sentence: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str, ...] = ()
    elementwise: bool = False

    def problem_with(self, value: Any) -> str | None:
        """Return why a value is illegal; None where it is not."""
        if value is None and self.default is None:
            return None
        match self.kind:
            case "boolean":
                return None if isinstance(value, bool) else "must be true or false"
            case "choice":
                return None if value in self.choices else f"must be one of {', '.join(self.choices)}"
            case "betas":
                return _problem_with_betas(value)
            case "integer":
                return self._problem_with_number(value) if isinstance(value, int) else "must be a whole number"
            case "float":
                return self._problem_with_number(value)

    def _problem_with_number(self, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return "must be a finite number"
        if self.name == "percentile":
            return percentile_problem(value)
        if self.low is not None and (value < self.low or (self.low_open and value == self.low)):
            return f"must be {'above' if self.low_open else 'at least'} {self.low:g}"
        if self.high is not None and (value > self.high or (self.high_open and value == self.high)):
            return f"must be {'below' if self.high_open else 'at most'} {self.high:g}"
        return None


def _problem_with_betas(value: Any) -> str | None:
    is_pair = isinstance(value, list | tuple) and len(value) == 2
    if is_pair and all(
        isinstance(beta, int | float) and not isinstance(beta, bool) and 0 <= beta < 1 for beta in value
    ):
        return None
    return "must be two numbers in [0, 1)"


def plain(value: Any) -> Any:
    """Return numbers of numpy, and of arrays and tensors without dimensions, as Python's; anything else as it is."""
    if type(value) in (float, int, str, bool) or value is None:
        return value
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def check_before_step(table: Mapping[str, Hyperparameter], group: dict[str, Any]) -> None:
    """Refuse options of a group that were set to something illegal since it was added; a tensor lr is not read.

    A rate or decay may be below zero by a rounding of its schedule.

    Raises:
        ValueError: With the name, the reason and the value.
    """
    for name, entry in table.items():
        value = group[name]
        if name == "lr" and isinstance(value, Tensor):
            continue
        if type(value) is not float:
            value = group[name] = plain(value)
        if name in ("lr", "weight_decay") and isinstance(value, float) and -1e-6 < value < math.inf:
            continue
        problem = entry.problem_with(value)
        if problem is not None:
            raise ValueError(f"{name} {problem}: got {value!r}")


def check_values(table: Mapping[str, Hyperparameter], values: Mapping[str, Any]) -> None:
    """Refuse the first illegal value; names without an entry in the table are passed over.

    A learning rate may be a tensor of one element, which on an accelerator is not read.

    Raises:
        ValueError: With the name, the reason and the value.
    """
    for name, value in values.items():
        if name not in table:
            continue
        if name == "lr" and isinstance(value, Tensor):
            if value.numel() != 1:
                raise ValueError(f"a tensor lr has one element: got shape {tuple(value.shape)}")
            if type(value) is not Tensor or value.device.type != "cpu":
                continue  # to read it would be to wait for it
            value = value.item()
        problem = table[name].problem_with(value)
        if problem is not None:
            raise ValueError(f"{name} {problem}: got {value!r}")


def table_of(*hyperparameters: Hyperparameter) -> dict[str, Hyperparameter]:
    """Index hyperparameters by name, in the order given."""
    return {hyperparameter.name: hyperparameter for hyperparameter in hyperparameters}


def lr(default: float) -> Hyperparameter:
    """Declare the learning rate."""
    return Hyperparameter(
        name="lr", kind="float", default=default, low=0, elementwise=True, sentence="Learning rate of the matrices."
    )


def weight_decay(default: float) -> Hyperparameter:
    """Declare the decoupled weight decay."""
    return Hyperparameter(
        name="weight_decay",
        kind="float",
        default=default,
        low=0,
        elementwise=True,
        sentence="Decoupled decay: weights shrink by lr times this each step.",
    )


def solver(default: str) -> Hyperparameter:
    """Declare the polar solver."""
    return Hyperparameter(
        name="solver", kind="choice", default=default, choices=tuple(SOLVERS), sentence="How the polar factor is found."
    )


def nesterov(default: bool) -> Hyperparameter:
    """Declare Nesterov's look ahead."""
    return Hyperparameter(
        name="nesterov", kind="boolean", default=default, sentence="Whether to look ahead along the momentum."
    )


MOMENTUM: Final = Hyperparameter(
    name="momentum",
    kind="float",
    default=0.95,
    low=0,
    high=1,
    high_open=True,
    elementwise=True,
    sentence="How much of the past the momentum keeps each step.",
)
NS_STEPS: Final = Hyperparameter(
    name="ns_steps",
    kind="integer",
    default=5,
    low=1,
    high=99,
    elementwise=True,
    sentence="Iterations of the polar solver; qdwh stops once it converged, svd and zolo_pd have none to set.",
)
EPS: Final = Hyperparameter(
    name="eps",
    kind="float",
    default=1e-7,
    low=0,
    elementwise=True,
    sentence="Norm below which a matrix moves less than a full step; qdwh, zolo_pd and svd do not read it.",
)
L0: Final = Hyperparameter(
    name="l0",
    kind="float",
    default=None,
    low=0,
    low_open=True,
    high=1,
    sentence="Share of the largest singular value from which on qdwh, zolo_pd and minimax converge; by default theirs.",
)
COMPUTE_DTYPE: Final = Hyperparameter(
    name="compute_dtype",
    kind="choice",
    default="auto",
    choices=COMPUTE_DTYPES,
    sentence="Arithmetic of the polar solver; auto is float64 for float64, else float32, or half precision on CUDA.",
)
