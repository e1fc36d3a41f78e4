"""The solvers of the polar factor by name: what each can be told, and the refusal of what it would not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, cast

import torch
from torch import Tensor

from spectune.optimizers.polar.coefficients import MAX_STEPS, Triple
from spectune.optimizers.polar.per_matrix_triples import check_own_triples
from spectune.optimizers.polar.rational import check_lowest
from spectune.optimizers.spelling import refuse_unknown

NotTensor: TypeAlias = Triple | Sequence[Triple] | str
Coefficients: TypeAlias = NotTensor | Tensor

DTYPES: Final[dict[str, torch.dtype]] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
COMPUTE_DTYPES: Final = ("auto", *DTYPES)


@dataclass(frozen=True, kw_only=True)
class Solver:
    """What a solver can be told.

    Attributes:
        is_iterative: Whether it is a quintic iteration, which reads `eps`.
        half_dtypes: The half precisions that it has.
        takes_steps: Whether it reads `steps`.
        takes_coefficients: Whether it reads `coefficients`.
        takes_bases: Whether those may be the name of one of `BASES`.
        takes_lowest: Whether it reads `l0`.
    """

    is_iterative: bool = False
    half_dtypes: tuple[str, ...] = ()
    takes_steps: bool = False
    takes_coefficients: bool = False
    takes_bases: bool = False
    takes_lowest: bool = False


QUINTIC: Final = Solver(is_iterative=True, half_dtypes=("float16", "bfloat16"), takes_steps=True)
SOLVERS: Final[dict[str, Solver]] = {
    "newton_schulz": replace(QUINTIC, takes_coefficients=True),
    "minimax": replace(QUINTIC, takes_lowest=True),
    "polar_express": QUINTIC,
    "adanewton": replace(QUINTIC, takes_coefficients=True),
    "gram": replace(QUINTIC, takes_coefficients=True, takes_bases=True, takes_lowest=True),
    "auto": replace(QUINTIC, takes_coefficients=True, takes_bases=True, takes_lowest=True),
    "qdwh": Solver(takes_steps=True, takes_lowest=True),
    "zolo_pd": Solver(takes_lowest=True),
    "svd": Solver(),
}
BASES: Final = ("newton_schulz", "minimax", "polar_express", "adanewton")


def check_solver(
    solver: str,
    *,
    steps: int | Tensor | None = None,
    coefficients: Coefficients | None = None,
    compute_dtype: str = "auto",
    l0: float | None = None,
) -> None:
    """Refuse what `polar_factor` would refuse whatever the matrix.

    Raises:
        ValueError: As `polar_factor`.
    """
    refuse_unknown("solver", solver, SOLVERS)
    refuse_unknown("compute_dtype", compute_dtype, COMPUTE_DTYPES)
    entry = SOLVERS[solver]
    if coefficients is not None:
        _check_coefficients(solver, coefficients)
    if steps is not None:
        _check_steps(solver, steps)
    if l0 is not None and not (entry.takes_lowest and coefficients in (None, "minimax")):
        raise ValueError(f"solver {solver!r} takes no l0: got {l0!r}")
    if l0 is not None:
        check_lowest(l0)
    if compute_dtype in ("float16", "bfloat16") and compute_dtype not in entry.half_dtypes:
        legal = ", ".join([*entry.half_dtypes, "float32 or float64"])
        raise ValueError(f"solver {solver!r} computes in {legal}: got {compute_dtype!r}")


def _check_coefficients(solver: str, coefficients: Coefficients) -> None:
    if not SOLVERS[solver].takes_coefficients:
        raise ValueError(f"solver {solver!r} has fixed coefficients: got {coefficients!r}")
    if isinstance(coefficients, Tensor):
        check_own_triples(coefficients, solver, is_taken=not SOLVERS[solver].takes_bases)
    elif not isinstance(coefficients, str):
        read_triples(coefficients)
    elif SOLVERS[solver].takes_bases:
        refuse_unknown(f"coefficients of {solver}", coefficients, BASES)
    else:
        raise ValueError(f"coefficients of {solver!r} are numbers: got {coefficients!r}")


def _check_steps(solver: str, steps: int | Tensor) -> None:
    if not SOLVERS[solver].takes_steps:
        raise ValueError(f"solver {solver!r} takes no steps: got {steps!r}")
    if isinstance(steps, Tensor) and (steps.is_floating_point() or steps.dtype == torch.bool):
        raise ValueError(f"steps are whole numbers: got dtype {steps.dtype}")
    if not isinstance(steps, Tensor) and (isinstance(steps, bool) or not isinstance(steps, int)):
        raise ValueError(f"steps are whole numbers: got {steps!r}")
    counts = steps.flatten().tolist() if isinstance(steps, Tensor) else [steps]
    for count in counts:
        if not 1 <= count <= MAX_STEPS:
            raise ValueError(f"steps must lie between 1 and {MAX_STEPS}: got {count}")


def read_triples(coefficients: Triple | Sequence[Triple]) -> list[Triple]:
    """Read one triple or a sequence of them.

    Raises:
        ValueError: They are no triples.
    """
    rows = [coefficients] if coefficients and not isinstance(coefficients[0], Sequence) else list(coefficients)
    if not rows or any(not isinstance(row, Sequence) or len(row) != 3 for row in rows):
        raise ValueError(f"coefficients are (a, b, c) or a sequence of such triples: got {coefficients!r}")
    return [cast(Triple, tuple(map(float, cast(Triple, row)))) for row in rows]
