"""The committed coefficients are what the generator gives, which is optimal and reproduces what is published."""

from __future__ import annotations

import itertools
import math
import runpy

import pytest
import torch

from spectune.optimizers.polar.coefficients import MINIMAX, MINIMAX_LOWEST, POLAR_EXPRESS
from spectune.optimizers.polar.minimax import greedy_composition, minimax_triples, optimal_quintic

POLAR_EXPRESS_CUSHION = 0.02407327424182761


def images(triples, low: float, count: int = 100_001) -> torch.Tensor:
    s = torch.logspace(math.log10(low), 0, count, dtype=torch.float64)
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return s


def largest_error(triple, low: float, high: float) -> float:
    s = torch.linspace(low, high, 20_001, dtype=torch.float64)
    a, b, c = triple
    return (a * s + b * s**3 + c * s**5 - 1).abs().max().item()


def test_the_committed_table_is_what_the_generator_gives():
    for committed, generated in zip(MINIMAX, greedy_composition(MINIMAX_LOWEST, len(MINIMAX)), strict=True):
        assert committed == pytest.approx(generated, rel=1e-13, abs=0)


def test_the_script_prints_the_table(capsys):
    runpy.run_module("spectune.optimizers.polar.rebuild_coefficients", run_name="__main__")
    printed = [tuple(map(float, line.strip(" (),").split(", "))) for line in capsys.readouterr().out.splitlines()]
    for row, committed in zip(printed, MINIMAX, strict=True):
        assert row == pytest.approx(committed, rel=1e-13, abs=0)


def test_with_its_cushion_the_generator_gives_the_published_table_of_polar_express():
    generated = greedy_composition(1e-3, 8, cushion=POLAR_EXPRESS_CUSHION)
    for ours, published in zip(generated[:6], POLAR_EXPRESS[:6], strict=True):
        assert ours == pytest.approx(published, rel=1e-12, abs=0)
    # The equations of the last rows are nearly singular; their error is far below what these digits could change.
    for ours, published in zip(generated[6:], POLAR_EXPRESS[6:], strict=True):
        assert ours == pytest.approx(published, rel=1e-8, abs=0)


def test_without_the_cushion_five_rows_are_better_than_the_published_ones():
    ours = images(greedy_composition(1e-3, 5), 1e-3)
    published = images(POLAR_EXPRESS[:5], 1e-3)
    assert (ours - 1).abs().max() < 0.95 * (published - 1).abs().max()


@pytest.mark.parametrize(("low", "high"), [(1e-6, 1.0), (3e-3, 1.0), (0.1, 1.9), (0.5, 1.5), (0.9, 1.1)])
def test_an_optimal_quintic_touches_its_error_four_times_with_alternating_signs(low, high):
    triple = optimal_quintic(low, high)
    s = torch.linspace(low, high, 400_001, dtype=torch.float64)
    a, b, c = triple
    error = a * s + b * s**3 + c * s**5 - 1
    largest = error.abs().max()
    touching = error[error.abs() > (1 - 1e-6) * largest].sign().int().tolist()
    assert [sign for sign, _ in itertools.groupby(touching)] == [-1, 1, -1, 1]


@pytest.mark.parametrize("nudge", [(1e-3, 0, 0), (-1e-3, 0, 0), (0, 1e-3, 0), (0, 0, -1e-3), (1e-3, -2e-3, 1e-3)])
def test_any_other_quintic_is_worse(nudge):
    triple = optimal_quintic(0.02, 1.5)
    other = tuple(value + change for value, change in zip(triple, nudge, strict=True))
    assert largest_error(other, 0.02, 1.5) > largest_error(triple, 0.02, 1.5)


def test_a_narrow_interval_gives_the_limit():
    assert optimal_quintic(1.0, 1.0) == (1.875, -1.25, 0.375)
    assert optimal_quintic(2.0, 2.0) == (1.875 / 2, -1.25 / 8, 0.375 / 32)


@pytest.mark.parametrize("interval", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (0.5, math.inf), (math.nan, 1.0)])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ValueError, match="0 < low <= high"):
        optimal_quintic(*interval)


@pytest.mark.parametrize(
    ("steps", "low", "expected"),
    [
        (3, 3e-3, (0.353, 1.647)),
        (4, 3e-3, (0.801, 1.199)),
        (5, 3e-3, (0.995, 1.005)),
        (6, 3e-3, (1 - 8e-8, 1 + 8e-8)),
        (7, 3e-3, (1 - 1e-14, 1 + 1e-14)),
        (5, 1e-3, (0.529, 1.005)),
    ],
)
def test_the_table_keeps_the_interval_that_is_stated_beside_it(steps, low, expected):
    s = images(MINIMAX[:steps], low)
    assert expected[0] <= s.min()
    assert s.max() <= expected[1]


def test_the_safe_rows_keep_their_interval_and_take_a_start_a_hundredth_too_large():
    s = images(minimax_triples(5), 3e-3)
    assert s.min() >= 0.987
    assert s.max() <= 1.005
    assert images([(1.01, 0, 0), *minimax_triples(5)], 3e-3).max() <= 1.005
    assert images(minimax_triples(9), 3e-3).sub(1).abs().max() < 1e-12
