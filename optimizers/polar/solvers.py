"""The solvers of the polar factor by name: what each computes and can be told, and the refusal of anything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, cast

import torch
from torch import Tensor

from spectune.optimizers.polar.coefficients import (
    CLASSIC,
    MAX_STEPS,
    MINIMAX_LOWEST,
    POLAR_EXPRESS_SAFETY,
    Triple,
    adanewton_triple,
    polar_express_triples,
    repeated,
)
from spectune.optimizers.polar.minimax import minimax_triples
from spectune.optimizers.polar.per_matrix_triples import check_own_triples
from spectune.optimizers.polar.qdwh import qdwh
from spectune.optimizers.polar.quintic import Quintic
from spectune.optimizers.polar.rational import check_lowest
from spectune.optimizers.polar.svd import by_svd
from spectune.optimizers.polar.zolotarev import zolo_pd
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
    """A solver: what it computes, and what it can be told. It has either a `quintic` or a `factor`.

    Attributes:
        quintic: Returns what is iterated on wide matrices, from rows, columns, steps and ℓ₀ (None is its default).
        factor: Returns the polar factor of matrices in a dtype, from ℓ₀ and steps (None are its defaults).
        form: Whether a quintic iterates on X ("plain"), on X Xᵀ ("gram"), or as the shape of X has it ("shape").
        divides_by_frobenius: Whether a quintic starts from the matrix over its Frobenius norm; else over Schatten-8's.
        reads_shape: Whether its coefficients depend on the shape.
        half_dtypes: The half precisions that it has.
        takes_steps: Whether it reads `steps`.
        takes_coefficients: Whether it reads `coefficients`.
        takes_bases: Whether those may be the name of one of `BASES`.
        takes_lowest: Whether it reads `l0`.
    """

    quintic: Callable[[int, int, int, float | None], Quintic] | None = None
    factor: Callable[[Tensor, torch.dtype, float | None, int | Tensor | None], Tensor] | None = None
    form: Literal["plain", "gram", "shape"] = "plain"
    divides_by_frobenius: bool = False
    reads_shape: bool = False
    half_dtypes: tuple[str, ...] = ()
    takes_steps: bool = False
    takes_coefficients: bool = False
    takes_bases: bool = False
    takes_lowest: bool = False

    @property
    def is_iterative(self) -> bool:
        """Whether it is a quintic iteration, which reads `eps`."""
        return self.quintic is not None


def _classic(rows: int, columns: int, steps: int, l0: float | None) -> Quintic:
    return Quintic(triples=repeated([CLASSIC], steps))


def _adanewton(rows: int, columns: int, steps: int, l0: float | None) -> Quintic:
    return Quintic(triples=repeated([adanewton_triple(rows, columns)], steps))


def _polar_express(rows: int, columns: int, steps: int, l0: float | None) -> Quintic:
    return Quintic(triples=polar_express_triples(steps), divisor=POLAR_EXPRESS_SAFETY)


def _minimax(rows: int, columns: int, steps: int, l0: float | None) -> Quintic:
    return Quintic(triples=minimax_triples(steps, l0=MINIMAX_LOWEST if l0 is None else l0), by_schatten=True)


def _svd(matrix: Tensor, dtype: torch.dtype, l0: float | None, steps: int | Tensor | None) -> Tensor:
    return by_svd(matrix, dtype=dtype)


def _zolo_pd(matrix: Tensor, dtype: torch.dtype, l0: float | None, steps: int | Tensor | None) -> Tensor:
    return zolo_pd(matrix, dtype=dtype, l0=l0)


def _qdwh(matrix: Tensor, dtype: torch.dtype, l0: float | None, steps: int | Tensor | None) -> Tensor:
    if not isinstance(steps, Tensor):
        return qdwh(matrix, dtype=dtype, l0=l0, steps=steps)
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    each = zip(flat, counts_of(steps, matrix.shape[:-2]), strict=True)
    return torch.stack([qdwh(one, dtype=dtype, l0=l0, steps=count) for one, count in each]).reshape(matrix.shape)


QUINTIC: Final = Solver(quintic=_classic, half_dtypes=("float16", "bfloat16"), takes_steps=True)
FIXED: Final = replace(QUINTIC, divides_by_frobenius=True)
CHOOSING: Final = replace(QUINTIC, quintic=_minimax, takes_coefficients=True, takes_bases=True, takes_lowest=True)
SOLVERS: Final[dict[str, Solver]] = {
    "newton_schulz": replace(FIXED, takes_coefficients=True),
    "minimax": replace(QUINTIC, quintic=_minimax, takes_lowest=True),
    "polar_express": replace(FIXED, quintic=_polar_express),
    "adanewton": replace(FIXED, quintic=_adanewton, reads_shape=True, takes_coefficients=True),
    "gram": replace(CHOOSING, form="gram"),
    "auto": replace(CHOOSING, form="shape"),
    "qdwh": Solver(factor=_qdwh, takes_steps=True, takes_lowest=True),
    "zolo_pd": Solver(factor=_zolo_pd, takes_lowest=True),
    "svd": Solver(factor=_svd),
}
BASES: Final = ("newton_schulz", "minimax", "polar_express", "adanewton")


def counts_of(steps: int | Tensor, batch: torch.Size) -> list[int]:
    """Return the steps of each matrix of the flattened batch.

    Raises:
        ValueError: They do not broadcast over the batch.
    """
    if not isinstance(steps, Tensor):
        return [steps] * math.prod(batch)
    while steps.ndim > len(batch) and steps.shape[-1] == 1:
        steps = steps.squeeze(-1)
    try:
        return [int(count) for count in steps.broadcast_to(batch).flatten().tolist()]
    except RuntimeError as error:
        shapes = f"got {tuple(steps.shape)} for {tuple(batch)}"
        raise ValueError(f"steps must broadcast over the leading dimensions: {shapes}") from error


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
