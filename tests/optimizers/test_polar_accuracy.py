"""How near each solver comes to the polar factor: the figures of the docstrings, as bounds, and at what cost."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from spectune.optimizers.diagnostics import polar_error
from spectune.optimizers.polar.coefficients import CLASSIC, polar_express_triples
from spectune.optimizers.polar.minimax import minimax_triples
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.polar.qdwh import qdwh_schedule
from spectune.optimizers.polar.quintic import segments
from spectune.optimizers.polar.solvers import SOLVERS
from spectune.optimizers.polar.zolotarev import jacobi_sn_cn, quarter_period, zolotarev_schedule, zolotarev_step
from spectune.optimizers.rules.muon import MuonRule
from spectune.optimizers.rules.polargrad import PolarGradRule
from tests.optimizers.references import gaussian, orthogonal, polar_reference

RATIONAL = pytest.mark.parametrize("solver", ["qdwh", "zolo_pd"])


def mean_error(matrices: Tensor, **options) -> float:
    return polar_error(polar_factor(matrices, **options), matrices).mean().item()


def with_spectrum(sigma: Tensor, rows: int, columns: int, *, seed: int = 0) -> Tensor:
    size = len(sigma)
    return orthogonal(rows, seed=seed)[:, :size] @ torch.diag(sigma) @ orthogonal(columns, seed=seed + 1)[:size]


def spiked(height: float) -> Tensor:
    """One singular value `height` times the others, 128 of them."""
    return with_spectrum(torch.tensor([height, *[1.0] * 127], dtype=torch.float64), 128, 256).float()


def in_extended_precision(matrix: Tensor) -> np.ndarray:
    """Newton-Schulz in 80-bit arithmetic: a reference for float64, whose own SVD errs as much as the bound allows."""
    X = matrix.double().numpy().astype(np.longdouble)
    X = X.T if X.shape[0] < X.shape[1] else X
    X = X / np.sqrt((X * X).sum())
    for _ in range(200):
        gram = X.T @ X
        X = 1.5 * X - 0.5 * X @ gram
        if abs(gram - np.eye(len(gram))).max() < 1e-18:
            break
    return X if matrix.shape[0] >= matrix.shape[1] else X.T


def error_in_bounds(factor: Tensor, matrix: Tensor) -> float:
    """Return the error as a multiple of eps (4 + 0.2 κ)."""
    sigma = torch.linalg.svdvals(matrix.double())
    bound = torch.finfo(matrix.dtype).eps * (4 + 0.2 * (sigma[0] / sigma[-1]).item())
    difference = factor.double().numpy().astype(np.longdouble) - in_extended_precision(matrix)
    return float(np.sqrt((difference * difference).sum() / min(matrix.shape))) / bound


def test_minimax_is_twenty_and_thirty_times_as_exact_on_a_gaussian_of_four_to_one():
    matrices = gaussian(4, 128, 512, dtype=torch.float32)
    found = mean_error(matrices, solver="minimax")
    assert found <= 5e-3
    assert found <= mean_error(matrices, solver="newton_schulz") / 30
    assert found <= mean_error(matrices, solver="polar_express") / 20


@pytest.mark.slow
def test_minimax_on_square_gaussians():
    matrices = gaussian(10, 256, 256, dtype=torch.float32)
    found = mean_error(matrices, solver="minimax")
    assert found <= 5e-2
    assert found <= mean_error(matrices, solver="newton_schulz") / 4
    assert found <= mean_error(matrices, solver="polar_express") / 2.5


@pytest.mark.parametrize("height", [3.0, 30.0, 200.0])
def test_minimax_on_spiked_spectra(height):
    assert mean_error(spiked(height), solver="minimax") <= 1.5e-2


def test_minimax_loses_to_polar_express_where_one_singular_value_is_five_hundred_times_the_others():
    matrix = spiked(500.0)
    assert mean_error(matrix, solver="minimax") > mean_error(matrix, solver="polar_express")


@pytest.mark.parametrize(
    ("dtype", "shape", "bound"),
    [
        ("bfloat16", (64, 256), 2e-2),
        ("float16", (64, 256), 2e-2),
        ("bfloat16", (256, 1024), 2e-2),
        ("bfloat16", (256, 256), 6e-2),
        pytest.param("float16", (256, 1024), 2e-2, marks=pytest.mark.slow),
        pytest.param("float16", (256, 256), 6e-2, marks=pytest.mark.slow),
    ],
)
def test_minimax_in_half_precision(dtype, shape, bound):
    matrices = gaussian(3, *shape, dtype=torch.float32)
    assert mean_error(matrices, solver="minimax", compute_dtype=dtype) <= bound


@pytest.mark.parametrize(
    ("solver", "dtype"), [(name, dtype) for name, solver in SOLVERS.items() for dtype in solver.half_dtypes]
)
@pytest.mark.parametrize("height", [1.0, 30.0, 500.0, 1e6])
def test_half_precision_stays_bounded_on_every_spectrum(solver, dtype, height):
    sigma = torch.logspace(0, -math.log10(height), 48, dtype=torch.float64)
    for matrix in (with_spectrum(sigma, 48, 64), with_spectrum(sigma[:5], 48, 64), gaussian(48, 64)):
        factor = polar_factor(matrix.float(), solver=solver, compute_dtype=dtype, steps=8)
        assert factor.isfinite().all()
        assert torch.linalg.matrix_norm(factor, 2) < 1.4


@pytest.mark.parametrize("base", ["newton_schulz", "minimax", "polar_express", "adanewton"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("shape", [(32, 128), (128, 32), (48, 48)])
def test_the_gram_form_equals_its_base(base, steps, shape):
    sigma = torch.logspace(0, -4, min(shape), dtype=torch.float64)
    for matrix in (gaussian(*shape), with_spectrum(sigma, *shape)):
        plain = polar_factor(matrix.float(), solver=base, steps=steps)
        gram = polar_factor(matrix.float(), solver="gram", coefficients=base, steps=steps)
        assert (gram - plain).norm() / math.sqrt(min(shape)) < 1e-3
        plain = polar_factor(matrix, solver=base, steps=steps)
        torch.testing.assert_close(
            polar_factor(matrix, solver="gram", coefficients=base, steps=steps), plain, rtol=0, atol=1e-9
        )


def test_in_bfloat16_the_gram_form_rounds_no_more_than_the_plain_form_where_spectra_are_wide():
    for sigma, allowed in ((None, 1.7), (torch.logspace(0, -2.7, 96, dtype=torch.float64), 1.0)):
        matrix = gaussian(96, 384) if sigma is None else with_spectrum(sigma, 96, 384)
        exact = polar_factor(matrix, solver="newton_schulz")

        def rounding(exact=exact, matrix=matrix, **how):
            return (polar_factor(matrix, compute_dtype="bfloat16", **how) - exact).norm()

        plain = rounding(solver="newton_schulz")
        assert rounding(solver="gram", coefficients=CLASSIC) <= allowed * plain
        assert rounding(solver="newton_schulz", steps=4) > 1.7 * plain  # another polynomial is told apart


def test_in_bfloat16_segments_are_as_long_as_their_slopes_allow():
    assert segments([CLASSIC] * 5, torch.bfloat16) == [2, 2, 1]
    assert segments([CLASSIC] * 5, torch.float32) == [2, 3]
    assert segments(minimax_triples(5), torch.bfloat16) == [1, 1, 2, 1]


def test_the_gram_form_takes_triples_as_newton_schulz_does():
    matrix = gaussian(6, 24)
    for coefficients in (CLASSIC, list(polar_express_triples(5))):
        plain = polar_factor(matrix, solver="newton_schulz", coefficients=coefficients)
        gram = polar_factor(matrix, solver="gram", coefficients=coefficients)
        torch.testing.assert_close(gram, plain, rtol=0, atol=1e-11)


def flops(matrix: Tensor, solver: str) -> int:
    with FlopCounterMode(display=False) as counter:
        polar_factor(matrix, solver=solver)
    return int(counter.get_total_flops())


def test_minimax_costs_what_newton_schulz_costs_and_auto_is_never_dearer():
    for columns in (32, 40, 48, 64, 128):
        matrix = gaussian(32, columns)
        assert flops(matrix, "minimax") == flops(matrix, "newton_schulz") == 5 * (4 * columns // 32 + 2) * 32**3 or (
            columns == 40
        )
        assert flops(matrix, "auto") == min(flops(matrix, "minimax"), flops(matrix, "gram"))


def test_minimax_for_a_lower_end_serves_wider_spectra_and_is_less_exact_on_narrow_ones():
    wide = with_spectrum(torch.logspace(0, -3, 48, dtype=torch.float64), 48, 64).float()
    narrow = gaussian(32, 128, dtype=torch.float32)
    assert mean_error(wide, solver="minimax", l0=1e-3) < 0.7 * mean_error(wide, solver="minimax")
    assert mean_error(narrow, solver="minimax", l0=1e-3) > 4 * mean_error(narrow, solver="minimax")
    torch.testing.assert_close(
        polar_factor(wide, solver="gram", l0=1e-3), polar_factor(wide, solver="minimax", l0=1e-3), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("solver", ["minimax", "gram", "auto"])
def test_the_optimizers_take_the_lower_end_that_momenta_need(solver):
    momentum = gaussian(8, 24)
    options = {"ns_steps": 5, "eps": 0.0}
    found = MuonRule(solver=solver).direction(momentum, options)
    assert torch.equal(found, polar_factor(momentum, solver=solver, l0=1e-3))
    found = PolarGradRule(solver=solver).direction(momentum, options)
    assert torch.equal(found, polar_factor(momentum, solver=solver, l0=1e-3))
    if solver != "minimax":
        found = MuonRule(solver=solver, ns_coefficients=CLASSIC).direction(momentum, options)
        assert torch.equal(found, polar_factor(momentum, solver=solver, coefficients=CLASSIC))


@RATIONAL
@pytest.mark.parametrize(
    ("dtype", "kappa"),
    [(dtype, kappa) for dtype in (torch.float32, torch.float64) for kappa in (1.0, 1e1, 1e3, 1e6)]
    + [(torch.float64, kappa) for kappa in (1e8, 1e10, 1e12)],
)
@pytest.mark.parametrize("shape", [(40, 40), (72, 24), (24, 72), (33, 32), (1, 5), (5, 1)])
def test_rational_solvers_are_as_exact_as_the_condition_number_allows(solver, dtype, kappa, shape):
    sigma = torch.logspace(0, -math.log10(kappa), min(shape), dtype=torch.float64)
    matrix = with_spectrum(sigma, *shape).to(dtype)
    assert error_in_bounds(polar_factor(matrix, solver=solver), matrix) <= 1


def test_the_bound_of_the_rational_solvers_rejects_what_is_not_converged():
    matrix = with_spectrum(torch.logspace(0, -1, 32, dtype=torch.float64), 32, 32)
    assert error_in_bounds(polar_factor(matrix, solver="qdwh", steps=2), matrix) > 1
    assert error_in_bounds(polar_factor(matrix, solver="minimax", steps=7), matrix) > 1
    assert error_in_bounds(polar_factor(matrix.float(), solver="qdwh").double(), matrix) > 1


@RATIONAL
@pytest.mark.parametrize("shape", [(40, 40), (72, 24), (24, 72)])
def test_rational_solvers_give_the_compact_factor_of_a_rank_deficient_matrix(solver, shape):
    matrix = with_spectrum(torch.logspace(0, -3, 10, dtype=torch.float64), *shape)
    found = polar_factor(matrix, solver=solver, l0=1e-6)
    assert (found - polar_reference(matrix)).norm() / math.sqrt(min(shape)) <= 1e-8


@RATIONAL
def test_what_is_below_l0_falls_short_and_what_is_above_converges(solver):
    matrix = torch.diag(torch.tensor([1.0, 2e-2, 1e-6], dtype=torch.float64))
    found = polar_factor(matrix, solver=solver, l0=1e-2).diagonal()
    torch.testing.assert_close(found[:2], torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert 0 < found[2] < 2e-3


def test_two_steps_of_qdwh_are_not_converged_as_published_and_more_than_enough_change_nothing():
    matrix = gaussian(60, 12, dtype=torch.float32)
    sigma = torch.linalg.svdvals(polar_factor(matrix, solver="qdwh", steps=2))
    assert 0.7 < sigma.min() < sigma.max() < 0.999
    assert torch.equal(polar_factor(matrix, solver="qdwh", steps=99), polar_factor(matrix, solver="qdwh"))


@pytest.mark.parametrize(("l0", "steps"), [(1e-16, 5), (2e-7, 4), (0.5, 2), (1.0, 0)])
def test_the_lower_end_alone_fixes_the_steps_of_qdwh(l0, steps):
    weights = qdwh_schedule(l0, 2.3e-16)
    assert len(weights) == steps
    s = torch.logspace(math.log10(l0), 0, 1001, dtype=torch.float64)
    for a, b, c in weights:
        s = s * (a + b * s * s) / (1 + c * s * s)
    assert (s - 1).abs().max() < 2e-8


@pytest.mark.parametrize("k", [0.0, 0.3, 0.9, 0.999])
def test_the_elliptic_functions_solve_their_differential_equation(k):
    kc = math.sqrt(1 - k * k)
    theta = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 * math.pi / 2
    amplitude = torch.cumsum((1 - (k * theta.sin()) ** 2).rsqrt(), 0) * (math.pi / 2 / 20_000)
    assert quarter_period(kc) == pytest.approx(amplitude[-1].item(), rel=1e-9)
    for index in (1000, 9999, 18_000):
        sn, cn = jacobi_sn_cn(amplitude[index].item(), kc)
        edge = (index + 1) / 20_000 * math.pi / 2
        assert (sn, cn) == pytest.approx((math.sin(edge), math.cos(edge)), rel=1e-6)


@pytest.mark.parametrize(("lowest", "degree"), [(0.1, 1), (1e-3, 2), (1e-6, 4), (1e-12, 8)])
def test_a_zolotarev_step_touches_its_error_as_often_as_the_best_one_must(lowest, degree):
    step = zolotarev_step(lowest, degree)
    s = torch.logspace(math.log10(lowest), 0, 400_001, dtype=torch.float64)
    value = s * step.factor
    for weight, shift in zip(step.weights, step.shifts, strict=True):
        value = value + step.factor * weight * s / (s * s + shift)
    middle, spread = (1 + step.lowest) / 2, (1 - step.lowest) / 2
    assert (value - middle).abs().max() <= spread * (1 + 1e-6) + 1e-13
    touching = (value - middle)[(value - middle).abs() > 0.999 * spread].sign().tolist()
    changes = sum(one != other for one, other in itertools.pairwise(touching))
    assert changes == 2 * degree + 1


def test_the_degree_of_zolo_pd_grows_with_the_condition_number():
    degrees = [len(zolotarev_schedule(l0, 2.3e-16)[0].shifts) for l0 in (0.5, 1e-2, 1e-6, 1e-16)]
    assert degrees == sorted(degrees)
    assert degrees[-1] > degrees[0]
    assert zolotarev_schedule(1.0, 2.3e-16) == ()


@pytest.mark.parametrize("l0", [0.0, -1.0, 1.5, math.nan, True])
def test_an_l0_that_is_none_is_refused(l0):
    with pytest.raises(ValueError, match="l0 must be"):
        polar_factor(gaussian(3, 4), solver="qdwh", l0=l0)
