"""Every domain: its map from the unit interval, its way back, and what it accepts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectune.search_spaces import (
    Choice,
    Domain,
    Fixed,
    Integer,
    LogInteger,
    LogUniform,
    OneMinusLogUniform,
    Space,
    Uniform,
    ZeroOrLogUniform,
    parse_space,
)

DOMAINS: list[Domain] = [
    Uniform(0.8, 1.0),
    LogUniform(3e-4, 1e-1),
    OneMinusLogUniform(0.8, 0.999),
    ZeroOrLogUniform(1e-3, 0.3),
    Integer(-2, 8),
    LogInteger(1, 100),
    Choice((True, 1, "a", [0.9, 0.95])),
    Fixed(5),
]


def _draws(domain: Domain, num_draws: int = 4000) -> list[object]:
    space = Space({"x": domain})
    generator = np.random.default_rng(0)
    return [space.decode(generator.random(space.num_axes).tolist())["x"] for _ in range(num_draws)]


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.kind)
@settings(deadline=None)
@given(data=st.data())
def test_every_point_of_the_cube_decodes_to_a_value_of_the_domain_that_comes_back_from_its_coordinates(
    domain: Domain, data: st.DataObject
) -> None:
    space = Space({"x": domain})
    unit = data.draw(st.lists(st.floats(0, 1), min_size=space.num_axes, max_size=space.num_axes))
    config = space.decode(unit)
    assert domain.problem_with(config["x"]) is None
    again = space.config(space.coordinates_at(unit) | space.coordinates(config))
    assert again["x"] == pytest.approx(config["x"], rel=1e-12) if isinstance(config["x"], float) else again == config


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.kind)
def test_a_domain_is_read_back_from_its_own_document(domain: Domain) -> None:
    assert parse_space(Space({"x": domain}).document())["x"] == domain


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.kind)
def test_the_extremes_belong_to_the_domain(domain: Domain) -> None:
    assert all(domain.problem_with(value) is None for value in domain.extremes())


@pytest.mark.parametrize("domain", DOMAINS[:3])
def test_the_corners_of_the_cube_are_the_bounds(domain: Domain) -> None:
    space = Space({"x": domain})
    corners = sorted(space.decode([corner])["x"] for corner in (0.0, 1.0))
    assert corners == pytest.approx(list(domain.extremes()), rel=1e-12)


def test_log_uniform_spends_equal_shares_on_equal_ratios() -> None:
    values = np.array(_draws(LogUniform(1e-4, 1e-1)))
    shares = [np.mean((values >= 10.0**k) & (values < 10.0 ** (k + 1))) for k in (-4, -3, -2)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)


def test_one_minus_log_uniform_spends_equal_shares_on_equal_ratios_of_the_distance_to_one() -> None:
    values = 1 - np.array(_draws(OneMinusLogUniform(0.9, 0.999)))
    assert np.mean(values < 0.01) == pytest.approx(0.5, abs=0.03)


def test_zero_or_log_uniform_is_zero_for_a_quarter_of_the_draws() -> None:
    assert np.mean(np.array(_draws(ZeroOrLogUniform(1e-3, 1.0))) == 0.0) == pytest.approx(0.25, abs=0.03)


def test_integers_are_equally_likely_ends_included() -> None:
    _, counts = np.unique(_draws(Integer(1, 4)), return_counts=True)
    assert counts / 4000 == pytest.approx([0.25] * 4, abs=0.03)


def test_log_integers_get_rarer_like_one_over_their_value() -> None:
    values = np.array(_draws(LogInteger(1, 100)))
    expected = math.log(1.5 / 0.5) / math.log(100.5 / 0.5)
    assert np.mean(values == 1) == pytest.approx(expected, abs=0.03)


def test_true_is_not_one() -> None:
    choice = Choice((True, 1))
    assert choice.coordinates("x", True) == {"x": 0}
    assert choice.coordinates("x", 1) == {"x": 1}
    assert Integer(0, 1).problem_with(True) == "an integer is needed"
    assert Uniform(0, 1).problem_with(True) == "a finite number is needed"


@pytest.mark.parametrize(
    ("domain", "value", "problem"),
    [
        (Uniform(0, 1), 2, "outside [0, 1]"),
        (Uniform(0, 1), math.nan, "a finite number is needed"),
        (ZeroOrLogUniform(0.1, 1), 0.05, "neither 0 nor inside [0.1, 1]"),
        (ZeroOrLogUniform(0.1, 1), "x", "a finite number is needed"),
        (Integer(1, 3), 2.0, "an integer is needed"),
        (Choice(("a", "b")), "c", "none of ['a', 'b']"),
        (Fixed(1), 2, "fixed to 1"),
    ],
)
def test_a_value_outside_the_domain_is_told_why(domain: Domain, value: object, problem: str) -> None:
    assert domain.problem_with(value) == problem
