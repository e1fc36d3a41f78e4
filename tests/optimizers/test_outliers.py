"""ROOT's outlier suppression."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.stages.outliers import (
    clip_outliers,
    percentile_threshold,
    sample_size,
    sampling_stride,
    soft_threshold,
    suppress_outliers,
)
from tests.optimizers.references import gaussian, quantile_reference


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    percentile=st.floats(0.01, 1.0),
    seed=st.integers(0, 99),
    rounded=st.booleans(),
)
def test_the_threshold_is_the_interpolated_quantile(rows, columns, percentile, seed, rounded):
    matrix = gaussian(rows, columns, seed=seed)
    matrix = matrix.round() if rounded else matrix  # with many ties
    expected = quantile_reference(matrix, percentile)
    assert percentile_threshold(matrix, percentile=percentile).item() == pytest.approx(expected, abs=1e-12)
    of_tensor = percentile_threshold(matrix, percentile=torch.tensor(percentile, dtype=torch.float64))
    assert of_tensor.item() == pytest.approx(expected, abs=1e-12)


def test_clipping_equals_taking_the_soft_thresholded_outliers_away():
    matrix = gaussian(3, 20, 30)
    threshold = percentile_threshold(matrix, percentile=0.9)
    torch.testing.assert_close(
        clip_outliers(matrix, threshold), matrix - soft_threshold(matrix, threshold), rtol=0, atol=1e-15
    )


def test_the_share_that_is_clipped_is_what_the_percentile_leaves():
    matrix = gaussian(40, 50)
    clipped = (suppress_outliers(matrix, percentile=0.9) != matrix).double().mean().item()
    assert abs(clipped - 0.1) <= 1 / matrix.numel()


@pytest.mark.parametrize("percentile", [1.0, torch.tensor(1.0), torch.ones(4, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_percentile_one_clips_nothing_at_all(percentile, dtype):
    matrix = gaussian(4, 7, 9, dtype=dtype)
    assert torch.equal(suppress_outliers(matrix, percentile=percentile), matrix)


@pytest.mark.parametrize("percentile", [0.9, 1.0, torch.tensor(0.9)])
def test_the_result_may_go_where_it_is_asked_to_even_over_the_matrix(percentile):
    matrix = gaussian(2, 7, 9)
    expected, elsewhere = suppress_outliers(matrix, percentile=percentile), torch.empty_like(matrix)
    assert suppress_outliers(matrix, percentile=percentile, out=elsewhere) is elsewhere
    assert torch.equal(elsewhere, expected)
    assert suppress_outliers(matrix, percentile=percentile, out=matrix) is matrix
    assert torch.equal(matrix, expected)


def test_each_matrix_has_its_own_threshold_and_may_have_its_own_percentile():
    batch = gaussian(3, 2, 8, 5) * torch.tensor([1.0, 10.0, 1e-3], dtype=torch.float64)[:, None, None, None]
    percentiles = torch.tensor([0.5, 0.9, 1.0], dtype=torch.float64)[:, None, None, None]
    together = suppress_outliers(batch, percentile=percentiles)
    for i in range(3):
        for j in range(2):
            alone = suppress_outliers(batch[i, j], percentile=float(percentiles[i]))
            torch.testing.assert_close(together[i, j], alone, rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", [(64, 64), (64, 256), (256, 256), (96, 1000), (1000, 96), (1, 70000)])
@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.99])
def test_the_sampled_percentile_is_off_by_no_more_than_it_says(shape, percentile):
    batch = gaussian(12, *shape) ** 3
    threshold = percentile_threshold(batch, percentile=percentile, quantile="sampled")
    rank = (batch.abs() <= threshold).double().mean(dim=(-2, -1))
    deviation = (percentile * (1 - percentile) / sample_size(*shape)) ** 0.5
    assert (rank - percentile).abs().max() < 4 * deviation
    assert (rank - percentile).square().mean().sqrt() < 1.5 * deviation
    assert (rank - percentile).abs().max() > 0  # it did sample


def test_the_sample_meets_every_column_and_is_the_same_each_time():
    """Outliers of language models sit in a few columns; a stride that divides the columns would miss or double them."""
    for rows, columns in [(64, 64), (96, 64), (256, 256), (1024, 512), (300, 700), (4096, 4096), (5, 7)]:
        stride = sampling_stride(rows, columns)
        read = torch.arange(rows * columns)[::stride]
        assert len((read % columns).unique()) == columns
        assert sample_size(rows, columns) <= len(read) < 4 * sample_size(rows, columns) or stride == 1
    matrix = gaussian(256, 256)
    first, second = (percentile_threshold(matrix, percentile=0.9, quantile="sampled") for _ in range(2))
    assert torch.equal(first, second)


def test_a_member_of_a_population_has_the_sampled_threshold_that_it_has_alone():
    batch = gaussian(3, 64, 96)
    percentiles = torch.tensor([0.5, 0.9, 1.0], dtype=torch.float64)[:, None, None]
    together = percentile_threshold(batch, percentile=percentiles, quantile="sampled")
    for matrix, percentile, threshold in zip(batch, percentiles, together, strict=True):
        alone = percentile_threshold(matrix, percentile=percentile.item(), quantile="sampled")
        assert torch.equal(alone, threshold)


def test_small_matrices_are_read_whole_and_percentile_one_is_the_largest_entry_however_it_is_found():
    small, large = gaussian(20, 38), gaussian(2, 256, 256)
    exact = percentile_threshold(small, percentile=0.9)
    assert torch.equal(percentile_threshold(small, percentile=0.9, quantile="sampled"), exact)
    for percentile in (1.0, torch.ones(2, 1, 1)):
        assert torch.equal(suppress_outliers(large, percentile=percentile, quantile="sampled"), large)
    large[0, 255, 254] = torch.inf
    assert suppress_outliers(large, percentile=0.9, quantile="sampled").isnan().all(dim=(-2, -1)).tolist() == [
        True,
        False,
    ]


def test_an_unknown_quantile_is_refused():
    with pytest.raises(ValueError, match=r"unknown quantile, did you mean 'sampled'\?: got 'sampeld'"):
        percentile_threshold(gaussian(3, 3), percentile=0.9, quantile="sampeld")


def test_a_matrix_of_mostly_zeros_is_left_as_it_is():
    matrix = torch.zeros(10, 10)
    matrix[2, 3], matrix[4, 4] = 5.0, -1.0
    assert torch.equal(suppress_outliers(matrix, percentile=0.9), matrix)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("percentile", [0.8, torch.tensor(0.8)])
def test_a_non_finite_entry_is_not_cut_down_to_a_finite_one(bad, percentile):
    batch = gaussian(3, 6, 6)
    clean = suppress_outliers(batch, percentile=percentile)
    batch[1, 2, 2] = bad
    clipped = suppress_outliers(batch, percentile=percentile)
    assert clipped[1].isnan().all()
    assert torch.equal(clipped[[0, 2]], clean[[0, 2]])


def test_clipping_brings_the_polar_factor_of_a_spoiled_matrix_back_to_the_clean_one():
    clean = gaussian(16, 24)
    spoiled = clean.clone()
    spoiled[3, 5] *= 1e3
    target = polar_factor(clean, solver="svd")

    def likeness(matrix):
        factor = polar_factor(matrix, solver="svd")
        return ((factor * target).sum() / factor.norm() / target.norm()).item()

    assert likeness(suppress_outliers(spoiled, percentile=0.9)) > likeness(spoiled)


@pytest.mark.parametrize(
    ("percentile", "message"),
    [
        (90, r"did you mean 0.90\?: got 90"),
        (99.5, r"did you mean 0.99\?|did you mean 1.00\?"),
        (0.0, r"\(0, 1\]: got 0"),
        (-0.5, r"got -0.5"),
        (float("nan"), r"got nan"),
        (torch.tensor([0.9, 95.0]), r"did you mean 0.95\?: got 95"),
    ],
)
def test_a_percentile_that_is_no_fraction_is_refused(percentile, message):
    with pytest.raises(ValueError, match=message):
        suppress_outliers(gaussian(2, 2), percentile=percentile)
