"""The rational solvers: where they end by default, what the caller may ask, and the official code's few steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spectune.optimizers import Muon, PolarGrad, Root, SpectralDescent
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.polar.rational import LOWEST
from spectune.optimizers.rules.polargrad import nuclear_norm_along
from tests.optimizers.references import gaussian, polar_reference
from tests.optimizers.test_polar_accuracy import RATIONAL, with_spectrum


@RATIONAL
@pytest.mark.parametrize("shape", [(40, 40), (72, 24), (24, 72)])
def test_by_default_rounding_noise_of_a_missing_rank_stays_below_what_is_stated(solver, shape):
    matrix = with_spectrum(torch.logspace(0, -3, 10, dtype=torch.float64), *shape)
    error = (polar_factor(matrix, solver=solver) - polar_reference(matrix)).norm() / math.sqrt(min(shape))
    assert 0 < error <= 4 * torch.finfo(torch.float64).eps / LOWEST[torch.float64]


@RATIONAL
@pytest.mark.parametrize("kappa", [1e14, 1e15])
def test_beyond_the_stated_condition_the_caller_gives_l0(solver, kappa):
    matrix = torch.diag(torch.tensor([1.0, 0.5, 1 / kappa], dtype=torch.float64))
    assert polar_factor(matrix, solver=solver)[2, 2] < 0.9
    assert polar_factor(matrix, solver=solver, l0=1e-16)[2, 2].item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", [Muon, PolarGrad, SpectralDescent, Root])
@RATIONAL
def test_an_optimizer_passes_l0_on(kind, solver):
    def moved(**options):
        [parameter] = params = [torch.nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))]
        parameter.grad = torch.diag(torch.tensor([1.0, 0.5, 1e-5], dtype=torch.float64))
        kind(params, solver=solver, weight_decay=0.0, **options).step()
        return parameter.detach().diagonal().abs().tolist()

    converged, short = moved(), moved(l0=0.1)
    assert converged[2] == pytest.approx(converged[1], rel=1e-3)
    assert short[2] < 0.1 * short[1]
    with pytest.raises(ValueError, match=r"'svd' takes no l0: got 0\.1"):
        kind([torch.nn.Parameter(torch.zeros(2, 2))], solver="svd", l0=0.1)
    with pytest.raises(ValueError, match=r"l0 must be above 0: got 0\.0"):
        kind([torch.nn.Parameter(torch.zeros(2, 2))], solver=solver, l0=0.0)


def official_qdwh(matrix: Tensor, steps: int) -> Tensor:
    """Map the singular values as PolarGrad's official code does, in the letters of its formulas."""
    U, sigma, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    alpha = math.sqrt(matrix.double().abs().sum(dim=0).max() * matrix.double().abs().sum(dim=1).max())
    x, lower = sigma / alpha, torch.finfo(matrix.dtype).eps
    for _ in range(steps):
        d = (4 * (1 / lower**2 - 1) / lower**2) ** (1 / 3)
        h = math.sqrt(1 + d)
        a = h + math.sqrt(2 - d + 2 * (2 - lower**2) / (lower**2 * h))
        b = (a - 1) ** 2 / 4
        c = a + b - 1
        lower = lower * (a + b * lower**2) / (1 + c * lower**2)
        x = x * (a + b * x**2) / (1 + c * x**2)
    return U @ torch.diag(1.5 * x - 0.5 * x**3) @ Vh


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(500, 5), (100, 500), (250, 100), (30, 30)])
def test_fewer_steps_than_converge_are_the_official_ones_and_as_long(steps, dtype, shape):
    matrix = gaussian(*shape, dtype=dtype)
    expected = official_qdwh(matrix, steps)
    found = polar_factor(matrix, solver="qdwh", steps=steps)
    assert (found.double() - expected).norm() / math.sqrt(min(shape)) < 1e-3
    length = (nuclear_norm_along(matrix, found) * found).norm().item()
    reference = (nuclear_norm_along(matrix, expected) * expected).norm().item()
    assert length == pytest.approx(reference, rel=1e-3)
    ours = polar_factor(matrix, solver="qdwh", steps=steps, l0=2e-7)
    assert (ours.double() - expected).norm() / math.sqrt(min(shape)) > 1e-2 or steps == 3  # the bound can tell
