"""Every solver of the polar factor, against float64 references and at the edges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optimizers.coefficients import (
    CLASSIC,
    POLAR_EXPRESS,
    ROOT_TRIPLES,
    adanewton_triple,
    polar_express_triples,
)
from optimizers.diagnostics import polar_error
from optimizers.minimax import minimax_triples
from optimizers.polar import SOLVERS, polar_factor
from tests.optimizers.references import (
    SHAPES,
    gaussian,
    newton_schulz_reference,
    orthogonal,
    polar_problems,
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


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda U: orthogonal(6, seed=9), id="orthogonal, but another one"),
        pytest.param(lambda U: -U, id="the other sign"),
        pytest.param(lambda U: 1.01 * U, id="too long"),
        pytest.param(lambda U: U @ orthogonal(6, seed=3), id="turned"),
        pytest.param(lambda U: torch.full_like(U, torch.nan), id="not a number"),
    ],
)
def test_the_check_of_a_polar_factor_rejects_wrong_answers(wrong):
    matrix = gaussian(6, 6)
    assert polar_problems(polar_reference(matrix), matrix, tolerance=1e-10) == []
    assert polar_problems(wrong(polar_reference(matrix)), matrix, tolerance=1e-10)


@every_shape
def test_svd_gives_the_polar_factor(shape):
    matrix = gaussian(*shape)
    assert polar_problems(polar_factor(matrix, solver="svd"), matrix, tolerance=1e-10) == []
    assert polar_error(polar_factor(matrix.float(), solver="svd"), matrix) < 1e-6


@every_solver
@every_shape
def test_a_solver_maps_the_singular_values_as_its_numbers_say(solver, shape):
    matrix = gaussian(*shape)
    factor = polar_factor(matrix, solver=solver)
    assert factor.dtype == torch.float64
    torch.testing.assert_close(factor, reference(matrix, solver), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        polar_factor(matrix.float(), solver=solver), reference(matrix, solver).float(), rtol=0, atol=2e-5
    )


def test_newton_schulz_in_bfloat16_equals_torch_to_its_rounding():
    from torch.optim._muon import _zeropower_via_newtonschulz

    for shape in [(16, 16), (8, 32), (48, 12)]:
        matrix = gaussian(*shape, dtype=torch.float32)
        theirs = _zeropower_via_newtonschulz(matrix, CLASSIC, 5, 1e-7).float()
        ours = polar_factor(matrix, solver="newton_schulz", compute_dtype="bfloat16", eps=1e-7)
        exact = newton_schulz_reference(matrix, [CLASSIC] * 5).float()
        assert (ours - theirs).norm() <= 2 * (theirs - exact).norm()


@pytest.mark.parametrize(("steps", "bound"), [(5, 0.16), (6, 7e-3), (7, 1.1e-5), (8, 1e-11), (12, 1e-11)])
def test_polar_express_converges_as_its_table_says_down_to_a_thousandth(steps, bound):
    sigma = torch.logspace(-2.7, 0, 24, dtype=torch.float64)
    sigma = sigma / sigma.norm()
    matrix = orthogonal(24, seed=1) @ torch.diag(sigma) @ orthogonal(24, seed=2)
    assert polar_problems(polar_factor(matrix, solver="polar_express", steps=steps), matrix, tolerance=2 * bound) == []


@pytest.mark.parametrize(
    ("triples", "low", "expected"),
    [
        (5 * [CLASSIC], 3e-3, (0.681, 1.203)),
        (5 * [CLASSIC], 1e-3, (0.470, 1.203)),
        (list(POLAR_EXPRESS[:5]), 1e-3, (1 - 0.1236, 1 + 0.1236)),
        (list(POLAR_EXPRESS[:6]), 1e-3, (1 - 1.2e-3, 1 + 1.2e-3)),
        (list(POLAR_EXPRESS[:7]), 1e-3, (1 - 1.1e-9, 1 + 1.1e-9)),
        (list(POLAR_EXPRESS), 1e-3, (1 - 1e-14, 1 + 1e-14)),
        (5 * [ROOT_TRIPLES[2048, 2048]], 1e-2, (0.772, 3.314)),
        (5 * [ROOT_TRIPLES[2048, 3072]], 1e-2, (0.789, 1.191)),
        (5 * [ROOT_TRIPLES[2048, 8192]], 1e-2, (0.932, 1.093)),
        (5 * [ROOT_TRIPLES[2048, 16384]], 1e-2, (0.884, 1.070)),
    ],
)
def test_coefficients_keep_the_interval_that_is_stated_beside_them(triples, low, expected):
    s = torch.logspace(torch.tensor(low).log10().item(), 0, 200_001, dtype=torch.float64)
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    assert expected[0] <= s.min()
    assert s.max() <= expected[1]


def test_adanewton_looks_its_triple_up_by_shape_in_either_orientation():
    assert adanewton_triple(2048, 8192) == adanewton_triple(8192, 2048) == (2.9794, -3.6674, 1.6207)
    assert adanewton_triple(2048, 4096) == CLASSIC


@pytest.mark.slow
def test_adanewton_iterates_with_the_published_triple():
    matrix = torch.randn(3072, 2048, generator=torch.Generator().manual_seed(0))
    triple = ROOT_TRIPLES[2048, 3072]
    found = polar_factor(matrix, solver="adanewton", steps=1)
    torch.testing.assert_close(found, polar_factor(matrix, solver="newton_schulz", steps=1, coefficients=triple))
    assert not torch.allclose(found, polar_factor(matrix, solver="newton_schulz", steps=1))


@pytest.mark.parametrize("columns", [2048, 3072, 8192, 16384])
def test_every_published_triple_beats_the_classic_one_on_the_gaussian_spectrum_of_its_shape(columns):
    sigma = torch.linalg.svdvals(gaussian(256, columns // 8)) / (8 * 256 * columns // 8) ** 0.5
    errors = []
    for a, b, c in (ROOT_TRIPLES[2048, columns], CLASSIC):
        s = sigma
        for _ in range(5):
            s = a * s + b * s**3 + c * s**5
        errors.append((s - 1).square().mean())
    assert errors[0] < errors[1]


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
        ({"solver": "gram", "compute_dtype": "bfloat16"}, "float16, float32 or float64: got 'bfloat16'"),
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
