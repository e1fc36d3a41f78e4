"""Every solver of the polar factor at the edges: zero, rank one, tiny, huge and non-finite matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spectune.optimizers.polar.coefficients import (
    CLASSIC,
    polar_express_triples,
)
from spectune.optimizers.polar.minimax import minimax_triples
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.polar.solvers import SOLVERS
from tests.optimizers.references import (
    SHAPES,
    gaussian,
    newton_schulz_reference,
    polar_reference,
)

ITERATIVE = [name for name, solver in SOLVERS.items() if solver.is_iterative]
every_solver = pytest.mark.parametrize("solver", list(SOLVERS))
every_iteration = pytest.mark.parametrize("solver", ITERATIVE)
every_shape = pytest.mark.parametrize("shape", SHAPES)

REFERENCE_TRIPLES = {
    "newton_schulz": ([CLASSIC] * 5, 1.0),
    "minimax": (list(minimax_triples(5)), 1.0, 8),
    "polar_express": (list(polar_express_triples(5)), 1.01),
    "adanewton": ([CLASSIC] * 5, 1.0),
    "gram": (list(minimax_triples(5)), 1.0, 8),
    "auto": (list(minimax_triples(5)), 1.0, 8),
}


def reference(matrix: Tensor, solver: str) -> Tensor:
    if solver not in REFERENCE_TRIPLES:
        return polar_reference(matrix)
    return newton_schulz_reference(matrix, *REFERENCE_TRIPLES[solver])


@every_solver
def test_zero_gives_zero(solver):
    for shape in SHAPES:
        assert torch.equal(polar_factor(torch.zeros(shape), solver=solver), torch.zeros(shape))


@every_solver
def test_an_empty_matrix_or_batch_gives_an_empty_one(solver):
    for shape in [(0, 3), (3, 0), (0, 4, 3), (2, 0, 3)]:
        assert polar_factor(torch.zeros(shape), solver=solver).shape == shape


@every_solver
def test_rank_one_gives_one_direction(solver):
    matrix = gaussian(6, 1) @ gaussian(1, 9, seed=1)
    is_rational = solver in ("qdwh", "zolo_pd")  # rounding noise arrives at eps / l0
    factor = polar_factor(matrix, solver=solver, **({"l0": 1e-6} if is_rational else {}))
    tolerance = 1e-8 if is_rational else 1e-10
    torch.testing.assert_close(factor, reference(matrix, solver), rtol=0, atol=tolerance)
    factor = polar_factor(matrix.float(), solver=solver, **({"l0": 1e-2} if is_rational else {})).double()
    assert (factor - reference(matrix, solver)).norm() < (1e-3 if is_rational else 1e-4)


@every_solver
def test_one_entry_a_million_times_the_rest_is_survived(solver):
    matrix = gaussian(8, 12)
    matrix[3, 4] = 1e6
    torch.testing.assert_close(polar_factor(matrix, solver=solver), reference(matrix, solver), rtol=0, atol=1e-6)
    assert polar_factor(matrix.float(), solver=solver).isfinite().all()


@every_solver
@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e30, 1e37])
def test_the_scale_of_the_matrix_does_not_matter_where_eps_is_zero(solver, scale):
    matrix = gaussian(5, 8).sign().float()  # signs, since a denormal keeps no more of a number
    matrix[0, :4] = 0
    factor = polar_factor(matrix * scale, solver=solver)
    torch.testing.assert_close(factor, polar_factor(matrix, solver=solver), rtol=0, atol=1e-5)


@every_iteration
def test_eps_shortens_what_is_smaller(solver):
    matrix = gaussian(5, 8)
    matrix = matrix / matrix.norm()
    full = polar_factor(matrix, solver=solver, steps=1)
    torch.testing.assert_close(polar_factor(matrix, solver=solver, steps=1, eps=0.99), full)
    assert polar_factor(1e-9 * matrix, solver=solver, eps=1e-3).norm() < 1e-2
    assert torch.equal(polar_factor(0 * matrix, solver=solver, eps=1e-7), 0 * matrix)


@pytest.mark.parametrize("factor", [1e-30, 1e30, 0.0])
def test_the_scale_of_one_matrix_does_not_change_a_bit_of_the_others(factor):
    """Norms are taken on a shorter way where none can overflow; one matrix that can must not turn the others off it."""
    batch = gaussian(4, 6, 9, dtype=torch.float32)
    clean = polar_factor(batch, solver="newton_schulz")
    mixed = batch.clone()
    mixed[2] *= factor
    result = polar_factor(mixed, solver="newton_schulz")
    assert torch.equal(result[[0, 1, 3]], clean[[0, 1, 3]])
    torch.testing.assert_close(result[2], clean[2] if factor else torch.zeros(6, 9), rtol=0, atol=1e-5)


@every_solver
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("compute_dtype", ["auto", "bfloat16"])
def test_a_non_finite_matrix_stays_non_finite_and_leaves_its_batch_alone(solver, bad, compute_dtype):
    if compute_dtype != "auto" and compute_dtype not in SOLVERS[solver].half_dtypes:
        compute_dtype = "float32"
    batch = gaussian(4, 5, 7, dtype=torch.float32)
    clean = polar_factor(batch, solver=solver, compute_dtype=compute_dtype)
    batch[2, 1, 3] = bad
    factor = polar_factor(batch, solver=solver, compute_dtype=compute_dtype)
    assert not factor[2].isfinite().any()
    for index in (0, 1, 3):
        assert torch.equal(factor[index], clean[index])
