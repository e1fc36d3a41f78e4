"""Basins, importances and edges on a bowl whose shape is known."""

from __future__ import annotations

import math
import random

import pytest

from spectune.search_spaces import (
    Choice,
    Integer,
    LogUniform,
    OneMinusLogUniform,
    Space,
    Uniform,
    When,
    ZeroOrLogUniform,
)
from spectune.service.campaign.analysis.sensitivity import Completed, basins, edges, importances

SPACE = Space({"lr": LogUniform(1e-4, 1), "flat": Uniform(0, 10), "decay": ZeroOrLogUniform(0.01, 1)})


def _bowl(num_points: int = 200, sign: float = 1.0) -> list[Completed]:
    generator = random.Random(0)
    points = []
    for _ in range(num_points):
        coordinates = SPACE.coordinates_at([generator.random() for _ in range(SPACE.num_axes)])
        config = SPACE.config(coordinates)
        points.append(Completed(config, coordinates, sign * (math.log10(config["lr"]) + 2) ** 2))
    return points


@pytest.mark.parametrize(("mode", "sign"), [("minimize", 1.0), ("maximize", -1.0)])
def test_a_sharp_hyperparameter_has_a_narrow_basin_and_a_flat_one_the_whole_range(mode: str, sign: float) -> None:
    found = basins(SPACE, _bowl(sign=sign), mode=mode)  # type: ignore[arg-type]
    lr, flat = found["lr"], found["flat"]
    assert lr.low < 1e-2 < lr.high
    assert lr.decades == pytest.approx(2 * math.sqrt(0.1), abs=0.15)  # the median of the bowl is 1
    assert lr.share == pytest.approx(lr.decades / 4)
    assert flat.share > 0.85
    assert flat.decades is None
    assert found["decay"].low >= 0.01  # zero stands apart


def test_too_few_points_have_no_basin() -> None:
    assert basins(SPACE, _bowl(3), mode="minimize") == {}
    assert basins(SPACE, [], mode="minimize") == {}


def test_importance_finds_what_matters_and_adds_up() -> None:
    shares = importances(SPACE, _bowl(), mode="minimize")
    assert next(iter(shares)) == "lr"
    assert shares["lr"] > 0.8
    assert set(shares) == set(SPACE)
    assert sum(shares.values()) == pytest.approx(1)


def test_importance_needs_ten_points_and_two_axes() -> None:
    assert importances(SPACE, _bowl(9), mode="minimize") == {}
    single = Space({"lr": LogUniform(1e-4, 1)})
    points = [Completed({"lr": each.config["lr"]}, {"lr": each.config["lr"]}, each.value) for each in _bowl(20)]
    assert importances(single, points, mode="minimize") == {}


def test_a_best_value_at_a_bound_is_told_with_where_to_go() -> None:
    space = Space(
        {
            "a_lr": LogUniform(1e-4, 1),
            "b_steps": Integer(1, 8),
            "c_momentum": OneMinusLogUniform(0.9, 0.99),
            "d_share": Uniform(0, 1),
            "e_decay": ZeroOrLogUniform(0.01, 1),
            "f_choice": Choice((1, 2)),
            "g_absent": When(Uniform(0, 1), (("f_choice", (2,)),)),
        }
    )
    config = {"a_lr": 1.2e-4, "b_steps": 8, "c_momentum": 0.9899, "d_share": 0.99, "e_decay": 0, "f_choice": 1}
    found = edges(space, Completed(config, {}, 1.0), is_allowed=lambda name, value: value <= 1 or name == "b_steps")
    assert [(edge.name, edge.bound, edge.extend_to) for edge in found] == [
        ("a_lr", 1e-4, pytest.approx(1e-5)),
        ("b_steps", 8, 10),
        ("c_momentum", 0.99, pytest.approx(1 - 0.01 * 10**-0.25)),
        ("d_share", 1, None),
    ]


def test_a_best_value_inside_is_no_edge() -> None:
    config = {"lr": 1e-2, "flat": 5, "decay": 0.1}
    assert edges(SPACE, Completed(config, {}, 1.0), is_allowed=lambda name, value: True) == []
