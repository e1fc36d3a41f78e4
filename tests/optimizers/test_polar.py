"""Every solver of the polar factor against float64 references and published numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spectune.optimizers.diagnostics import polar_error
from spectune.optimizers.polar import polar_factor as polar
from spectune.optimizers.polar.coefficients import (
    CLASSIC,
    POLAR_EXPRESS,
    POLAR_EXPRESS_SAFETY,
    ROOT_TRIPLES,
    adanewton_triple,
    polar_express_triples,
)
from spectune.optimizers.polar.minimax import minimax_triples
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.polar.solvers import SOLVERS
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


@pytest.mark.parametrize(
    ("row", "triples", "divisor"),
    [
        ("newton_schulz", 5 * [CLASSIC], 1.0),
        ("polar_express", polar_express_triples(5), POLAR_EXPRESS_SAFETY),
        ("minimax, 3e-3", minimax_triples(5, l0=3e-3), 1.0),
        ("minimax, 1e-3", minimax_triples(5, l0=1e-3), 1.0),
    ],
)
def test_the_account_of_the_quintics_is_what_their_numbers_do(row, triples, divisor):
    """The table at the top of `polar.py`: slope at zero, what is raised to a half, the largest error down to ℓ."""
    line = next(line for line in polar.__doc__.splitlines() if line.startswith(f"    {row}  "))
    slope, half, *errors = (float(word) for word in line.removeprefix(f"    {row}").split())
    start = torch.logspace(-5, 0, 500_001, dtype=torch.float64)
    end = start / divisor
    for a, b, c in triples:
        end = a * end + b * end**3 + c * end**5
    assert math.prod(a for a, _, _ in triples) == pytest.approx(slope, abs=0.5)
    assert start[(end >= 0.5).to(torch.int8).argmax()].item() == pytest.approx(half, rel=0.02)
    for low, error in zip((3e-3, 1e-3), errors, strict=True):
        assert (end[start >= low] - 1).abs().max().item() == pytest.approx(error, rel=0.04)


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
