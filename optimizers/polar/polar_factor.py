"""The polar factor U Vᵀ of a matrix G = U Σ Vᵀ: every singular value set to one.

**How it is found without singular vectors.** A step X <- X h(XᵀX) keeps the singular vectors and moves each singular
value alone, σ <- σ h(σ²). So the matrix asks a scalar question: which odd functions, cheap as products or solves,
compose to one that is 1 on [ℓ, 1], where the singular values of G lie once it is divided by a bound of σ₁? The error

    ‖X − U Vᵀ‖_F / √m  =  (mean over the m singular values of (f(σ) − 1)²)^½

is read off f. Quintics take three products a step; composing the best one of [ℓ, 1], then the best of the interval that
it leaves, and so on, is the best composition there is (Amsel et al., Polar Express, arXiv 2505.16932).
Five steps, 15 products, of each solver's own quintics:

    solver          slope at 0   σ raised to ½   largest error on [3e-3, 1]   on [1e-3, 1]
    newton_schulz       485         1.07e-3                .32                     .53
    polar_express       976         5.4e-4                 .13                     .16
    minimax, 3e-3       540         9.8e-4                 .013                    .49
    minimax, 1e-3       998         5.2e-4                 .14                     .14

The slope ∏ a bounds what five quintics lift: a value below 1 / ∏ a stays small whatever the others do. So exactness
and reach are traded against each other by ℓ (`l0`), and by how tight the bound of σ₁ is: Frobenius' norm pushes the
values of a square Gaussian matrix down by √m / 2, and the classic triple, which never settles (it sends [3e-3, 1] to
[.68, 1.2]), was made for slope. `minimax` divides by the Schatten-8 norm instead, which costs nothing (`quintic`).

**Solvers.**

    newton_schulz    X <- a X + b (X Xᵀ) X + c (X Xᵀ)² X from X = G / ‖G‖_F, one triple (a, b, c) for all steps
    minimax          the same from the Schatten-8 norm with our own triples for [ℓ₀, 1]: the most exact for its cost
    polar_express    the same with a triple of its own for each step (published table for [1e-3, 1])
    adanewton        the same with one triple for the shape (ROOT, arXiv 2511.20626), classic where none is published
    gram             any of these four on X Xᵀ: fewer flops where columns > 1.5 rows, the same result but for rounding
    auto             `gram` there, plain elsewhere; `minimax` unless told otherwise
    qdwh, zolo_pd    rational iterations, to the accuracy of the dtype (`qdwh`, `zolotarev`)
    svd              exact

**Which one.** To set the direction of an optimizer's step, `minimax`: in float32 it leaves 0.004 on a Gaussian matrix
of 4:1 and 0.038 on a square one, where the classic triple leaves 0.15 and 0.21 and Polar Express 0.085 and 0.11;
momenta, whose spectra are wider, want ℓ₀ = 1e-3. One singular value 500 times the others is where it loses, 0.15
against 0.12 (`benchmarks/polar.py`). Where the error itself enters a formula, as in the nuclear norm ⟨G, U Vᵀ⟩ of
PolarGrad, `qdwh` or `svd`: no polynomial of 15 products is exact. The factor's own condition number is 1 / σ_min, so ε
κ is as near as any method comes in arithmetic of rounding ε; of a rank-deficient matrix the iterations, which send
zero to zero, give the compact factor.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spectune.optimizers.arithmetic import exact_dtype, without_autocast
from spectune.optimizers.polar.coefficients import (
    DEFAULT_STEPS,
    repeated,
)
from spectune.optimizers.polar.per_matrix_triples import iterated_by_own
from spectune.optimizers.polar.quintic import GRAM_FROM, Quintic, iterated
from spectune.optimizers.polar.solvers import (
    DTYPES,
    SOLVERS,
    Coefficients,
    NotTensor,
    check_solver,
    counts_of,
    read_triples,
)


def polar_factor(
    matrix: Tensor,
    *,
    solver: str,
    steps: int | Tensor | None = None,
    coefficients: Coefficients | None = None,
    eps: float | Tensor = 0.0,
    compute_dtype: str = "auto",
    l0: float | None = None,
    out: Tensor | None = None,
    lends: bool = False,
) -> Tensor:
    """Return the orthogonal factor of the polar decomposition of each matrix of a batch.

    Args:
        matrix: Real floating point, shape [..., rows, columns]; any number of leading dimensions, none included.
        solver: A key of `SOLVERS`.
        steps: Iterations, 1 to 99; 5 where not given, for `qdwh` as many as it takes to converge, and never more, and
            if fewer and without `l0` those of PolarGrad's official code. An
            integer tensor gives each matrix its own and must broadcast over the leading dimensions (trailing dimensions
            of size one, as in [members, 1, 1], are dropped); it is read on the host, so keep it on the CPU.
            Not for `svd` and `zolo_pd`.
        coefficients: One triple for all steps, or one a step, the last one repeated. Only for `newton_schulz` and
            `adanewton`, which have some and take a tensor [..., triples, 3] as well, each matrix's own; and for `gram`
            and `auto`, which take as well the name of one of `BASES`, by default "minimax", and normalise as it does.
        eps: The iterations divide by max(‖G‖, eps), so a matrix smaller than eps gives less than its polar factor.
            torch.optim.Muon uses 1e-7. At 0 the result does not depend on the scale of G. `qdwh`, `zolo_pd` and `svd`
            read none.
        compute_dtype: `auto` computes float64 input in float64, anything else in float32 on the CPU. On CUDA the
            iterations then take bfloat16, the arithmetic of torch.optim.Muon, but float16, three more bits, from the
            Schatten-8 norm (`minimax`) and in Gram form. In bfloat16 `auto` takes the plain form.
            `qdwh`, `zolo_pd` and `svd` have neither half.
        l0: In (0, 1]: singular values from ℓ₀ σ₁ up are meant to converge. For `minimax`, by default 3e-3; smaller
            serves wider spectra and costs exactness on narrow ones. For `qdwh` and `zolo_pd`, by default 2e-7 in
            float32 and 2e-13 in float64, for κ up to 1e6 and 1e12; a rank-deficient matrix gives the compact factor
            to about 4 eps(dtype) / ℓ₀.
        out: Receives the result and is returned. It may be `matrix`.
        lends: Whether the result may be of the dtype of the arithmetic, and lie in memory that the next call in this
            thread writes over: for a caller that reads it once, as an optimizer's step does, and saves two copies.

    Returns:
        A tensor with the shape, dtype and device of `matrix`. A zero matrix gives zero. `svd` treats singular values up
        to max(rows, columns) · eps(dtype) · σ₁ as zero and gives the compact factor. A matrix with a non-finite entry
        gives non-finite entries; the others of its batch are not touched by it.

        The accuracy does not depend on autocast or on the precision that the process allows float32 products
        (`arithmetic`).

    Raises:
        ValueError: Fewer than two dimensions, an unknown solver or dtype, steps out of range, or an option that the
            solver would not read.
    """
    check_solver(solver, steps=steps, coefficients=coefficients, compute_dtype=compute_dtype, l0=l0)
    _check_matrix(matrix)
    with without_autocast(matrix.device):
        if matrix.numel() == 0:
            result = matrix.clone()
        elif (factor := SOLVERS[solver].factor) is not None:
            result = factor(matrix, _dtype_for(matrix, compute_dtype, on_accelerator=torch.float32), l0, steps)
        else:
            lent = lends or out is not None
            result = _polynomial(matrix, solver, steps, coefficients, eps, compute_dtype, l0, lent)
    if out is not None:
        return out.copy_(result)
    return result if lends else result.to(matrix.dtype)


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


def _polynomial(
    matrix: Tensor,
    solver: str,
    steps: int | Tensor | None,
    coefficients: Coefficients | None,
    eps: float | Tensor,
    compute_dtype: str,
    l0: float | None,
    lends: bool,
) -> Tensor:
    rows, columns = matrix.shape[-2:]
    wide = matrix.mT if rows > columns else matrix
    counts = counts_of(DEFAULT_STEPS if steps is None else steps, matrix.shape[:-2])
    if isinstance(coefficients, Tensor):
        dtype = exact_dtype(_dtype_for(matrix, compute_dtype, on_accelerator=torch.bfloat16), matrix.device)
        result = iterated_by_own(wide, counts, coefficients, eps=eps, dtype=dtype)
    else:
        quintic = _quintic(solver, wide.shape[-2], wide.shape[-1], max(counts), coefficients, l0)
        half = torch.float16 if quintic.by_schatten or quintic.in_gram_form else torch.bfloat16
        dtype = exact_dtype(_dtype_for(matrix, compute_dtype, on_accelerator=half), matrix.device)
        if dtype == torch.bfloat16 and solver == "auto":
            quintic = replace(quintic, in_gram_form=False)  # which is never the less exact one
        result = iterated(wide, counts, quintic, eps=eps, dtype=dtype, lends=lends)
    if rows > columns and dtype.itemsize == 2:
        result = result.mT.contiguous().mT  # turned here in half the bytes, else by whoever adds it to a tall parameter
    return result.mT if rows > columns else result


def _quintic(
    solver: str, rows: int, columns: int, steps: int, coefficients: NotTensor | None, l0: float | None
) -> Quintic:
    """Return what is iterated on a wide matrix."""
    entry = SOLVERS[solver]
    in_gram_form = entry.form == "gram" or (entry.form == "shape" and columns > GRAM_FROM * rows)
    if isinstance(coefficients, str):
        entry, coefficients = SOLVERS[coefficients], None
    if coefficients is not None:
        return Quintic(triples=repeated(read_triples(coefficients), steps), in_gram_form=in_gram_form)
    assert entry.quintic is not None, f"only a quintic is iterated: got {solver!r}"
    return replace(entry.quintic(rows, columns, steps, l0), in_gram_form=in_gram_form)
