"""The diagnostics, against what they are by definition."""

from __future__ import annotations

import pytest
import torch

from spectune.optimizers import diagnostics
from spectune.optimizers.polar.polar_factor import polar_factor
from tests.optimizers.references import gaussian, orthogonal, polar_reference

DIAGNOSTICS = {
    "orthogonality_error": diagnostics.orthogonality_error,
    "polar_error": lambda X: diagnostics.polar_error(X, X),
    "update_rms": diagnostics.update_rms,
    "update_spectral_norm": diagnostics.update_spectral_norm,
    "newton_schulz_residual": lambda X: diagnostics.newton_schulz_residual(X)[..., -1],
    "nuclear_norm": lambda X: diagnostics.nuclear_norm(X, X),
    "stable_rank": diagnostics.stable_rank,
    "clipped_fraction": lambda X: diagnostics.clipped_fraction(X, percentile=0.9),
    "outlier_ratio": lambda X: diagnostics.outlier_ratio(X, percentile=0.9),
}
every_diagnostic = pytest.mark.parametrize("measure", list(DIAGNOSTICS.values()), ids=list(DIAGNOSTICS))


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6), (1, 4)])
def test_they_are_what_they_are_by_definition(shape):
    matrix = gaussian(*shape)
    sigma, exact, smaller = torch.linalg.svdvals(matrix), polar_reference(matrix), min(shape)
    measured = {
        "orthogonality": diagnostics.orthogonality_error(matrix),
        "polar error": diagnostics.polar_error(matrix, matrix),
        "rms": diagnostics.update_rms(matrix),
        "spectral norm": diagnostics.update_spectral_norm(matrix),
        "nuclear norm": diagnostics.nuclear_norm(matrix, exact),
        "stable rank": diagnostics.stable_rank(matrix),
    }
    expected = {
        "orthogonality": ((sigma.square() - 1).square().sum() / smaller).sqrt(),
        "polar error": ((sigma - 1).square().sum() / smaller).sqrt(),
        "rms": matrix.norm() / matrix.numel() ** 0.5,
        "spectral norm": sigma[0],
        "nuclear norm": sigma.sum(),
        "stable rank": sigma.square().sum() / sigma[0].square(),
    }
    torch.testing.assert_close(measured, expected)


def test_errors_are_nothing_for_the_exact_factor_and_something_for_another_orthogonal_matrix():
    matrix = gaussian(6, 6)
    assert diagnostics.polar_error(polar_factor(matrix, solver="svd"), matrix) < 1e-12
    other = orthogonal(6, seed=4)
    assert diagnostics.orthogonality_error(other) < 1e-12
    assert diagnostics.polar_error(other, matrix) > 0.1


def test_outliers_are_counted_and_compared_with_the_threshold():
    matrix = torch.arange(1.0, 101.0).reshape(10, 10)
    assert diagnostics.clipped_fraction(matrix, percentile=0.9).item() == pytest.approx(0.1)
    assert diagnostics.outlier_ratio(matrix, percentile=0.5).item() == pytest.approx(100 / 50.5)
    assert diagnostics.clipped_fraction(matrix, percentile=1.0).item() == 0


def test_a_threshold_of_zero_clips_nothing_and_shows_as_an_infinite_ratio():
    matrix = torch.zeros(10, 10)
    matrix[3, 3] = 1.0
    assert diagnostics.clipped_fraction(matrix, percentile=0.9).item() == 0
    assert diagnostics.outlier_ratio(matrix, percentile=0.9).item() == float("inf")


@every_diagnostic
def test_a_batch_gives_a_number_for_each_matrix_and_a_bad_one_spoils_only_its_own(measure):
    batch = gaussian(2, 3, 6, 4)
    alone = torch.stack([torch.stack([measure(matrix) for matrix in row]) for row in batch])
    torch.testing.assert_close(measure(batch), alone)
    spoiled = batch.clone()
    spoiled[1, 2, 0, 0] = torch.nan
    measured = measure(spoiled)
    assert not measured[1, 2].isfinite()
    torch.testing.assert_close(measured.flatten()[:-1], alone.flatten()[:-1])


def test_the_residual_of_newton_schulz_is_what_the_polynomial_does_to_the_singular_values():
    matrix = gaussian(2, 6, 9)
    sigma = torch.linalg.svdvals(matrix)
    sigma = sigma / sigma.norm(dim=-1, keepdim=True)
    measured = diagnostics.newton_schulz_residual(matrix, steps=7, coefficients=(1.875, -1.25, 0.375))
    assert measured.shape == (2, 7)
    for step in range(7):
        sigma = 1.875 * sigma - 1.25 * sigma**3 + 0.375 * sigma**5
        expected = (sigma.square() - 1).square().mean(dim=-1).sqrt()
        torch.testing.assert_close(measured[:, step], expected, rtol=1e-9, atol=1e-12)
    assert (diagnostics.newton_schulz_residual(matrix)[:, -1] > 0.05).all()  # the classic triple does not converge


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_spectral_norm_survives_extreme_scales_and_a_zero_matrix(scale):
    matrix = gaussian(5, 7, dtype=torch.float32)
    expected = scale * diagnostics.update_spectral_norm(matrix)
    torch.testing.assert_close(diagnostics.update_spectral_norm(scale * matrix), expected, rtol=1e-5, atol=0)
    assert diagnostics.update_spectral_norm(0 * matrix) == 0
