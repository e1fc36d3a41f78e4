"""The polar factor U Vᵀ of a matrix G = U Σ Vᵀ: every singular value set to one.

    newton_schulz    X <- a X + b (X Xᵀ) X + c (X Xᵀ)² X from X = G / ‖G‖_F, one triple (a, b, c) for all steps
    polar_express    the same with a triple of its own for each step (arXiv 2505.16932, table for [1e-3, 1])
    adanewton        the same with one triple for the shape (ROOT, arXiv 2511.20626), classic where none is published
    svd              exact

The iterations work on the orientation with fewer rows, where X Xᵀ is smallest. They send a zero singular value to zero
and are not exact: see `coefficients.py` for what each set of numbers reaches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

import torch
from torch import Tensor

from optimizers.coefficients import (
    CLASSIC,
    DEFAULT_STEPS,
    MAX_STEPS,
    POLAR_EXPRESS_SAFETY,
    Triple,
    adanewton_triple,
    polar_express_triples,
    repeated,
)
from optimizers.spelling import refuse_unknown

Coefficients: TypeAlias = Triple | Sequence[Triple]

DTYPES: Final[dict[str, torch.dtype]] = {
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
# Measured on CPU in float32, 24 matrices: batched products win below 192 rows (2.5 times at 64), single ones from
# there on (1.2 times at 256, one core or two). In bfloat16 the batch is never behind.
LOOPED_ROWS: Final = 192
COMPUTE_DTYPES: Final = ("auto", *DTYPES)


@dataclass(frozen=True)
class Solver:
    """What a solver can be told."""

    is_iterative: bool
    takes_coefficients: bool


SOLVERS: Final[dict[str, Solver]] = {
    "newton_schulz": Solver(is_iterative=True, takes_coefficients=True),
    "polar_express": Solver(is_iterative=True, takes_coefficients=False),
    "adanewton": Solver(is_iterative=True, takes_coefficients=True),
    "svd": Solver(is_iterative=False, takes_coefficients=False),
}


def polar_factor(
    matrix: Tensor,
    *,
    solver: str,
    steps: int | Tensor | None = None,
    coefficients: Coefficients | None = None,
    eps: float | Tensor = 0.0,
    compute_dtype: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """Give the orthogonal factor of the polar decomposition of each matrix of a batch.

    Args:
        matrix: Real floating point, shape [..., rows, columns]; any number of leading dimensions, none included.
        solver: A key of `SOLVERS`.
        steps: Iterations, 1 to 99; 5 where not given. An integer tensor gives each matrix its own and must broadcast
            over the leading dimensions (trailing dimensions of size one, as in [members, 1, 1], are dropped); it is
            read on the host, so keep it on the CPU. Not for `svd`.
        coefficients: One triple for all steps, or one a step, the last one repeated. Only for `newton_schulz` and
            `adanewton`, which have their own where none is given.
        eps: The iterations divide by max(‖G‖_F, eps), so a matrix smaller than eps gives less than its polar factor.
            torch.optim.Muon uses 1e-7. At 0 the result does not depend on the scale of G. The exact solver reads none.
        compute_dtype: `auto` computes float64 input in float64, anything else in bfloat16 on CUDA and float32
            elsewhere (`svd`: float32). `bfloat16` is the arithmetic of torch.optim.Muon; `svd` has none of it.
        out: Receives the result and is returned. It may be `matrix`.

    Returns:
        A tensor with the shape, dtype and device of `matrix`. A zero matrix gives zero. `svd` treats singular values up
        to max(rows, columns) · eps(dtype) · σ₁ as zero and gives the compact factor. A matrix with a non-finite entry
        gives non-finite entries; the others of its batch are not touched by it.

    Raises:
        ValueError: Fewer than two dimensions, an unknown solver or dtype, steps out of range, or an option that the
            solver would not read.
    """
    check_solver(solver, steps=steps, coefficients=coefficients, compute_dtype=compute_dtype)
    _check_matrix(matrix)
    if matrix.numel() == 0:
        result = matrix.clone()
    elif not SOLVERS[solver].is_iterative:
        result = _exact(matrix, _dtype_for(matrix, compute_dtype, on_accelerator=torch.float32))
    else:
        result = _iterated(matrix, solver, steps, coefficients, eps, compute_dtype)
    return result if out is None else out.copy_(result)


def check_solver(
    solver: str,
    *,
    steps: int | Tensor | None = None,
    coefficients: Coefficients | None = None,
    compute_dtype: str = "auto",
) -> None:
    """Refuse what `polar_factor` would refuse whatever the matrix.

    Raises:
        ValueError: As `polar_factor`.
    """
    refuse_unknown("solver", solver, SOLVERS)
    refuse_unknown("compute_dtype", compute_dtype, COMPUTE_DTYPES)
    if coefficients is not None and not SOLVERS[solver].takes_coefficients:
        raise ValueError(f"solver {solver!r} has fixed coefficients: got {coefficients!r}")
    if coefficients is not None:
        _triples(coefficients)
    if steps is not None:
        _check_steps(solver, steps)
    if compute_dtype == "bfloat16" and not SOLVERS[solver].is_iterative:
        raise ValueError(f"solver {solver!r} computes in float32 or float64: got {compute_dtype!r}")


def _check_steps(solver: str, steps: int | Tensor) -> None:
    if not SOLVERS[solver].is_iterative:
        raise ValueError(f"solver {solver!r} takes no steps: got {steps!r}")
    if isinstance(steps, Tensor) and (steps.is_floating_point() or steps.dtype == torch.bool):
        raise ValueError(f"steps are whole numbers: got dtype {steps.dtype}")
    if not isinstance(steps, Tensor) and (isinstance(steps, bool) or not isinstance(steps, int)):
        raise ValueError(f"steps are whole numbers: got {steps!r}")
    counts = steps.flatten().tolist() if isinstance(steps, Tensor) else [steps]
    for count in counts:
        if not 1 <= count <= MAX_STEPS:
            raise ValueError(f"steps must lie between 1 and {MAX_STEPS}: got {count}")


def _check_matrix(matrix: Tensor) -> None:
    if matrix.ndim < 2:
        raise ValueError(f"a matrix or a batch of matrices is needed: got shape {tuple(matrix.shape)}")
    if not matrix.is_floating_point():
        raise ValueError(f"a real floating point matrix is needed: got {matrix.dtype}")


def _dtype_for(matrix: Tensor, compute_dtype: str, *, on_accelerator: torch.dtype) -> torch.dtype:
    if compute_dtype != "auto":
        return DTYPES[compute_dtype]
    if matrix.dtype == torch.float64:
        return torch.float64
    return on_accelerator if matrix.is_cuda else torch.float32


def _iterated(
    matrix: Tensor,
    solver: str,
    steps: int | Tensor | None,
    coefficients: Coefficients | None,
    eps: float | Tensor,
    compute_dtype: str,
) -> Tensor:
    rows, columns = matrix.shape[-2:]
    wide = matrix.mT if rows > columns else matrix
    safety = POLAR_EXPRESS_SAFETY if solver == "polar_express" else 1.0
    start = _normalised(wide, eps=eps, safety=safety).to(
        _dtype_for(matrix, compute_dtype, on_accelerator=torch.bfloat16)
    )
    counts = _counts(DEFAULT_STEPS if steps is None else steps, matrix.shape[:-2])
    triples = _schedule(solver, rows, columns, max(counts), coefficients)
    # Contiguous: a tall batch arrives as a transposed view, whose products are a third slower in float32.
    flat = start.reshape(-1, *start.shape[-2:]).contiguous()
    result = _narrowing(flat, counts, triples).reshape(start.shape).to(matrix.dtype)
    return result.mT if rows > columns else result


def _normalised(matrix: Tensor, *, eps: float | Tensor, safety: float) -> Tensor:
    """Divide each matrix by safety · max(‖G‖_F, eps); 1e-30 and 1e30 survive.

    The detour through a power of two near the largest entry changes no digit of a matrix that did not need it, so
    leaving it out where no matrix of the batch does keeps every matrix independent of the others, bit for bit.
    """
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    norm = torch.linalg.vector_norm(wide, dim=(-2, -1), keepdim=True)
    if _squares_survived(norm) and not isinstance(eps, Tensor):
        return torch.div(wide, norm.clamp(min=eps) * safety)
    largest = wide.abs().amax(dim=(-2, -1), keepdim=True)
    scale = torch.where(largest.isfinite() & (largest > 0), largest / (2 * largest.frexp().mantissa), 1.0)
    shrunk = wide / scale
    norm = torch.linalg.vector_norm(shrunk, dim=(-2, -1), keepdim=True)
    smallest = eps if isinstance(eps, Tensor) else torch.full_like(scale, eps)  # `eps / scale` takes 1 / scale first
    norm = torch.maximum(norm, smallest / scale)
    return shrunk / (safety * torch.where(norm == 0, 1.0, norm))


def _squares_survived(norm: Tensor) -> bool:
    """Say whether norms of float32 can be trusted; on a device that would mean to wait for it, so nothing is known."""
    if norm.device.type != "cpu" or torch.compiler.is_compiling() or norm.numel() == 0:
        return False
    smallest, largest = norm.aminmax()  # NaN passes neither comparison
    return bool(smallest > 1e-12) and bool(largest < 1e12)


def _counts(steps: int | Tensor, batch: torch.Size) -> list[int]:
    """Give the steps of each matrix of the flattened batch."""
    if not isinstance(steps, Tensor):
        return [steps] * math.prod(batch)
    while steps.ndim > len(batch) and steps.shape[-1] == 1:
        steps = steps.squeeze(-1)
    try:
        return [int(count) for count in steps.broadcast_to(batch).flatten().tolist()]
    except RuntimeError as error:
        shapes = f"got {tuple(steps.shape)} for {tuple(batch)}"
        raise ValueError(f"steps must broadcast over the leading dimensions: {shapes}") from error


def _schedule(
    solver: str, rows: int, columns: int, steps: int, coefficients: Coefficients | None
) -> tuple[Triple, ...]:
    if coefficients is not None:
        return repeated(_triples(coefficients), steps)
    if solver == "polar_express":
        return polar_express_triples(steps)
    return repeated([adanewton_triple(rows, columns) if solver == "adanewton" else CLASSIC], steps)


def _triples(coefficients: Coefficients) -> list[Triple]:
    """Read one triple or a sequence of them."""
    rows = [coefficients] if coefficients and not isinstance(coefficients[0], Sequence) else list(coefficients)
    if not rows or any(not isinstance(row, Sequence) or len(row) != 3 for row in rows):
        raise ValueError(f"coefficients are (a, b, c) or a sequence of such triples: got {coefficients!r}")
    return [cast(Triple, tuple(map(float, cast(Triple, row)))) for row in rows]


def _narrowing(start: Tensor, counts: list[int], triples: Sequence[Triple]) -> Tensor:
    """Iterate each matrix of [batch, m, n] its own number of times: sorted, so that finished ones drop off the end."""
    if len(set(counts)) == 1:
        return _iterate(start, triples)
    order = sorted(range(len(counts)), key=lambda index: -counts[index])
    active, finished = start[order], []
    for step, triple in enumerate(triples):
        num_active = sum(count > step for count in counts)
        finished.append(active[num_active:])
        active = _iterate(active[:num_active], [triple])
    ordered = torch.cat([active, *reversed(finished)])
    return torch.empty_like(ordered).index_copy_(0, torch.tensor(order, device=start.device), ordered)


def _iterate(start: Tensor, triples: Sequence[Triple]) -> Tensor:
    """Apply X <- a X + (b A + c A²) X with A = X Xᵀ, once for each triple."""
    if len(start) == 1:  # a single matrix has a faster path through BLAS than a batch of one
        return _steps(start[0], triples, torch.addmm)[None]
    if start.device.type == "cpu" and start.dtype == torch.float32 and start.shape[-2] >= LOOPED_ROWS:
        return torch.stack([_steps(matrix, triples, torch.addmm) for matrix in start])
    return _steps(start, triples, torch.baddbmm)


def _steps(X: Tensor, triples: Sequence[Triple], multiply_add: Callable[..., Tensor]) -> Tensor:
    for a, b, c in triples:
        A = X @ X.mT
        B = multiply_add(A, A, A, beta=b, alpha=c)
        X = multiply_add(X, B, X, beta=a)
    return X


def _exact(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    wide = matrix.to(dtype)
    largest = wide.abs().amax(dim=(-2, -1), keepdim=True)
    finite = largest.isfinite()
    scale = torch.where(finite & (largest > 0), largest, 1.0)
    # LAPACK raises for the whole batch where one matrix is not finite, hence zeros in its place.
    U, sigma, Vh = torch.linalg.svd(torch.where(finite, wide / scale, 0.0), full_matrices=False)
    negligible = max(matrix.shape[-2:]) * torch.finfo(wide.dtype).eps * sigma[..., :1]
    result = (U * (sigma > negligible).unsqueeze(-2)) @ Vh
    return torch.where(finite, result, torch.nan).to(matrix.dtype)
