"""Tuning curves: bands where they hold, and a reason where they would not."""

from __future__ import annotations

import math
import random

import pytest

from spectune.search_spaces import Choice, LogUniform, Space
from spectune.service.campaign.analysis.tuning_curve import tuning_curve, why_no_band

REALS = Space({"lr": LogUniform(1e-3, 1)})


def test_random_search_without_stopping_has_a_band() -> None:
    assert why_no_band("random", is_stopped=False, space=REALS, num_points=32) == ""


@pytest.mark.parametrize(
    ("sampler", "is_stopped", "space", "num_points", "reason"),
    [
        ("tpe", False, REALS, 32, "points of tpe depend on each other"),
        ("random", True, REALS, 32, "some points were stopped before their end"),
        ("random", False, Space({"a": Choice((1, 2))}), 32, "points of a finite space are drawn without replacement"),
        ("random", False, REALS, 3, "3 points are too few"),
        ("random", False, REALS, 301, "301 points would take too long; bands are drawn for at most 300"),
    ],
)
def test_elsewhere_the_reason_is_told(sampler, is_stopped, space, num_points, reason) -> None:  # type: ignore[no-untyped-def]
    assert why_no_band(sampler, is_stopped=is_stopped, space=space, num_points=num_points) == reason


def test_without_a_band_the_curve_is_the_best_so_far_and_what_diverged_is_infinitely_bad() -> None:
    curve = tuning_curve([math.nan, 3.0, 4.0, -math.inf, 2.0], mode="minimize", reason="because")
    assert curve.median == (math.inf, 3.0, 3.0, 3.0, 2.0)
    assert (curve.low, curve.high, curve.reason) == (None, None, "because")
    assert tuning_curve([1.0, math.inf, 3.0], mode="maximize", reason="x").median == (1.0, 1.0, 3.0)


def test_no_points_have_no_curve() -> None:
    assert tuning_curve([], mode="minimize", reason="").reason == "no point has ended"


@pytest.mark.parametrize("mode", ["minimize", "maximize"])
def test_the_median_of_uniform_values_is_known_and_inside_the_band(mode: str) -> None:
    generator = random.Random(3)
    values = [generator.random() for _ in range(40)]
    curve = tuning_curve(values, mode=mode, reason="")  # type: ignore[arg-type]
    assert curve.low is not None
    assert curve.high is not None
    for count in (1, 3, 10):
        best = 0.5 ** (1 / count)
        truth = best if mode == "maximize" else 1 - best
        assert curve.low[count - 1] <= truth <= curve.high[count - 1]
        assert curve.median[count - 1] == pytest.approx(truth, abs=0.15)


def test_a_band_holds_values_that_diverged() -> None:
    generator = random.Random(0)
    values = [generator.random() if index % 4 else math.inf for index in range(16)]
    curve = tuning_curve(values, mode="minimize", reason="")
    assert curve.high is not None
    assert curve.high[0] == math.inf
    assert math.isfinite(curve.median[-1])
