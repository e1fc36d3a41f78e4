"""What every solver of the polar factor promises: batches, steps, dtypes, invariances, refusals, no wait."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectune.optimizers.polar.coefficients import (
    CLASSIC,
)
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.polar.quintic import CACHED_ENTRIES
from spectune.optimizers.polar.solvers import SOLVERS
from tests.optimizers.references import (
    SHAPES,
    gaussian,
    orthogonal,
)

ITERATIVE = [name for name, solver in SOLVERS.items() if solver.is_iterative]
every_solver = pytest.mark.parametrize("solver", list(SOLVERS))
every_iteration = pytest.mark.parametrize("solver", ITERATIVE)
every_shape = pytest.mark.parametrize("shape", SHAPES)


@every_solver
@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6)])
def test_batched_equals_looped_with_any_leading_dimensions(solver, shape):
    batch = gaussian(2, 3, *shape)
    factor = polar_factor(batch, solver=solver)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(factor[i, j], polar_factor(batch[i, j], solver=solver), rtol=0, atol=1e-12)


@every_iteration
@pytest.mark.parametrize("steps_shape", [(2, 3), (3,), (2, 1), (2, 3, 1, 1)])
def test_each_matrix_of_a_batch_may_have_its_own_steps(solver, steps_shape):
    batch = gaussian(2, 3, 5, 8)
    steps = torch.randint(1, 8, steps_shape, generator=torch.Generator().manual_seed(2))
    factor = polar_factor(batch, solver=solver, steps=steps)
    each = (steps.squeeze((-1, -2)) if steps.ndim == 4 else steps).broadcast_to(2, 3)
    for i in range(2):
        for j in range(3):
            alone = polar_factor(batch[i, j], solver=solver, steps=int(each[i, j]))
            torch.testing.assert_close(factor[i, j], alone, rtol=0, atol=1e-12)


@every_solver
def test_out_receives_the_result_and_may_be_the_input(solver):
    matrix = gaussian(3, 7, 4)
    expected = polar_factor(matrix, solver=solver)
    out = torch.empty_like(matrix)
    assert polar_factor(matrix, solver=solver, out=out) is out
    assert torch.equal(out, expected)
    assert torch.equal(polar_factor(matrix, solver=solver, out=matrix), expected)


@every_solver
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_of_the_input_is_kept_and_the_input_unchanged(solver, dtype):
    matrix = gaussian(4, 6, dtype=dtype)
    before = matrix.clone()
    assert polar_factor(matrix, solver=solver).dtype == dtype
    assert torch.equal(matrix, before)


@every_solver
@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 99), scale=st.floats(1e-6, 1e6))
def test_orthogonal_maps_scale_and_transposition_pass_through(solver, rows, columns, seed, scale):
    matrix = gaussian(rows, columns, seed=seed)
    P, Q = orthogonal(rows, seed=seed + 1), orthogonal(columns, seed=seed + 2)
    factor = polar_factor(matrix, solver=solver)
    torch.testing.assert_close(polar_factor(scale * matrix, solver=solver), factor, rtol=0, atol=1e-9)
    torch.testing.assert_close(polar_factor(matrix.mT, solver=solver), factor.mT, rtol=0, atol=1e-9)
    torch.testing.assert_close(polar_factor(P @ matrix @ Q, solver=solver), P @ factor @ Q, rtol=0, atol=1e-8)


@every_solver
def test_padding_with_zeros_pads_the_result_with_zeros(solver):
    matrix = gaussian(5, 8)
    padded = torch.nn.functional.pad(matrix, (0, 3, 0, 2))
    factor = torch.nn.functional.pad(polar_factor(matrix, solver=solver), (0, 3, 0, 2))
    torch.testing.assert_close(polar_factor(padded, solver=solver), factor, rtol=0, atol=1e-10)


def test_svd_drops_what_is_zero_to_rounding():
    matrix = gaussian(6, 2, dtype=torch.float32) @ gaussian(2, 9, seed=1, dtype=torch.float32)
    sigma = torch.linalg.svdvals(polar_factor(matrix, solver="svd"))
    torch.testing.assert_close(sigma, torch.tensor([1.0, 1, 0, 0, 0, 0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "newton_shulz"}, "did you mean 'newton_schulz'.*got 'newton_shulz'"),
        ({"solver": "svd", "steps": 3}, "takes no steps: got 3"),
        ({"solver": "newton_schulz", "steps": 0}, "between 1 and 99: got 0"),
        ({"solver": "newton_schulz", "steps": 100}, "between 1 and 99: got 100"),
        ({"solver": "newton_schulz", "steps": 2.5}, "whole numbers: got 2.5"),
        ({"solver": "newton_schulz", "steps": torch.tensor([1.0])}, "whole numbers: got dtype torch.float32"),
        ({"solver": "newton_schulz", "steps": torch.tensor([3, 0])}, "between 1 and 99: got 0"),
        ({"solver": "newton_schulz", "steps": torch.tensor([1, 2])}, r"broadcast.*got \(2,\) for \(\)"),
        ({"solver": "newton_schulz", "coefficients": (1.0, 2.0)}, r"\(a, b, c\).*got \(1.0, 2.0\)"),
        ({"solver": "newton_schulz", "coefficients": []}, r"got \[\]"),
        ({"solver": "polar_express", "coefficients": CLASSIC}, "fixed coefficients"),
        ({"solver": "svd", "compute_dtype": "bfloat16"}, "got 'bfloat16'"),
        ({"solver": "gram", "coefficients": "polar_expres"}, "did you mean 'polar_express'"),
        ({"solver": "newton_schulz", "coefficients": "minimax"}, "are numbers: got 'minimax'"),
        ({"solver": "minimax", "coefficients": CLASSIC}, "fixed coefficients"),
        ({"solver": "svd", "l0": 1e-3}, "takes no l0: got 0.001"),
        ({"solver": "gram", "coefficients": CLASSIC, "l0": 1e-3}, "takes no l0: got 0.001"),
        ({"solver": "minimax", "l0": 0}, "l0 must be"),
        ({"solver": "zolo_pd", "steps": 2}, "takes no steps: got 2"),
        ({"solver": "svd", "compute_dtype": "float8"}, "got 'float8'"),
    ],
)
def test_an_option_that_would_not_be_followed_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        polar_factor(gaussian(3, 4), **options)


def test_what_is_not_a_matrix_is_refused_with_its_shape():
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        polar_factor(torch.zeros(3), solver="svd")
    with pytest.raises(ValueError, match=r"got torch.int64"):
        polar_factor(torch.zeros(3, 3, dtype=torch.int64), solver="svd")
    with pytest.raises(ValueError, match=r"got torch.complex64"):
        polar_factor(torch.zeros(3, 3, dtype=torch.complex64), solver="svd")


@every_iteration
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 24, 9), (24, 9), (2, 260, 200)])
def test_a_tall_matrix_is_iterated_as_it_lies_to_the_factor_of_its_transpose(solver, dtype, shape):
    name = str(dtype).removeprefix("torch.")
    tall = gaussian(*shape, dtype=torch.float32)
    wide = tall.mT.contiguous()
    factor = polar_factor(tall, solver=solver, compute_dtype=name)
    other = polar_factor(wide, solver=solver, compute_dtype=name)
    bound = {torch.float32: 1e-4, torch.bfloat16: 0.03}[dtype]
    assert (factor - other.mT).norm() <= bound * other.norm()
    assert (factor + other.mT).norm() > bound * other.norm()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_pieces_that_fit_the_cache_are_normalised_as_one_would_be(dtype):
    batch = gaussian(2 * CACHED_ENTRIES // (64 * 128) + 1, 64, 128, dtype=torch.float32)
    batch[-1] *= 1e-20
    for matrices in (batch, batch.mT.contiguous()):
        together = polar_factor(matrices, solver="newton_schulz", compute_dtype=dtype)
        for place in (0, len(batch) - 1):
            pair = matrices[[place, place]]
            assert torch.equal(together[place], polar_factor(pair, solver="newton_schulz", compute_dtype=dtype)[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_result_outlives_the_next_call(dtype):
    first = polar_factor(gaussian(3, 8, 12, dtype=torch.bfloat16), solver="newton_schulz", compute_dtype=dtype)
    kept = first.clone()
    polar_factor(gaussian(3, 8, 12, seed=1, dtype=torch.bfloat16), solver="newton_schulz", compute_dtype=dtype)
    assert torch.equal(first, kept)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_iteration
def test_on_cuda_nothing_is_read_back_and_bfloat16_is_close(solver):
    batch = gaussian(4, 32, 64, dtype=torch.float32)
    on_device = batch.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        factor = polar_factor(on_device, solver=solver)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (factor.cpu() - polar_factor(batch, solver=solver)).norm() / batch.shape[0] ** 0.5 < 0.2 * 32**0.5
