"""Spaces: order, conditions, and membership of configurations."""

from __future__ import annotations

import pytest

from spectune.search_spaces import (
    Choice,
    Fixed,
    Integer,
    LogInteger,
    LogUniform,
    Space,
    SpaceError,
    Uniform,
    When,
    ZeroOrLogUniform,
)

CONDITIONAL = Space(
    {
        "solver": Choice(("newton_schulz", "qdwh")),
        "ns_steps": When(Choice((3, 5)), (("solver", ("newton_schulz",)),)),
        "a_detail": When(Uniform(0, 1), (("ns_steps", (5,)),)),  # sorts before what it depends on
    }
)


def test_equal_spaces_written_in_another_order_decode_alike() -> None:
    one = Space({"a": Uniform(0, 1), "b": LogUniform(1, 10)})
    other = Space({"b": LogUniform(1, 10), "a": Uniform(0, 1)})
    assert one == other
    assert one.decode([0.25, 0.5]) == other.decode([0.25, 0.5])
    assert list(one.decode([0.25, 0.5])) == ["a", "b"]


def test_a_point_of_another_dimension_or_outside_the_cube_is_refused() -> None:
    space = Space({"a": Uniform(0, 1), "b": ZeroOrLogUniform(0.1, 1), "c": Fixed(3)})
    assert space.num_axes == 3
    with pytest.raises(ValueError, match=r"has 3 coordinates: got 2"):
        space.decode([0.5, 0.5])
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]: got"):
        space.decode([0.5, 0.5, 1.5])


@pytest.mark.parametrize(
    ("coordinates", "config"),
    [
        ({"solver": 0, "ns_steps": 1, "a_detail": 0.5}, {"a_detail": 0.5, "ns_steps": 5, "solver": "newton_schulz"}),
        ({"solver": 0, "ns_steps": 0, "a_detail": 0.5}, {"ns_steps": 3, "solver": "newton_schulz"}),
        ({"solver": 1, "ns_steps": 1, "a_detail": 0.5}, {"solver": "qdwh"}),
    ],
)
def test_what_does_not_count_is_left_out_and_so_is_all_that_depends_on_it(
    coordinates: dict[str, float], config: dict[str, object]
) -> None:
    assert CONDITIONAL.config(coordinates) == config
    assert CONDITIONAL.problems_with(config) == []
    assert CONDITIONAL.config(coordinates | CONDITIONAL.coordinates(config)) == config


def test_the_axes_are_the_same_whatever_the_values() -> None:
    assert list(CONDITIONAL.axes) == ["a_detail", "ns_steps", "solver"]


def test_a_configuration_outside_the_space_is_told_everything_that_is_wrong() -> None:
    problems = CONDITIONAL.problems_with({"solver": "qdwh", "ns_steps": 5, "sover": 1})
    assert problems == [
        ("a_detail", "missing"),
        ("ns_steps", "given, but its `when` does not hold"),
        ("sover", "not in the search space; did you mean 'solver'?"),
    ]
    assert CONDITIONAL.problems_with({"solver": "qdwx"}) == [("solver", "none of ['newton_schulz', 'qdwh']")]


def test_what_is_fixed_may_be_left_out_of_a_configuration() -> None:
    space = Space({"rule": Fixed("a"), "x": When(Uniform(0, 1), (("rule", ("a",)),))})
    assert space.problems_with({"x": 0.5}) == []
    assert space.problems_with({"rule": "b"}) == [("rule", "fixed to 'a'")]
    assert space.completed({"x": 0.5}) == {"rule": "a", "x": 0.5}


def test_a_condition_on_an_unknown_hyperparameter_suggests_the_nearest() -> None:
    with pytest.raises(SpaceError, match=r"/ns_steps/when: .*did you mean 'solver'\?: got 'solvr'"):
        Space({"solver": Choice(("a", "b")), "ns_steps": When(Fixed(5), (("solvr", ("a",)),))})


def test_conditions_in_a_circle_are_refused() -> None:
    with pytest.raises(SpaceError, match=r"/a/when: depends on itself"):
        Space({"a": When(Fixed(1), (("b", (1,)),)), "b": When(Fixed(1), (("a", (1,)),))})


def test_a_grid_holds_every_configuration_once_and_leaves_out_what_does_not_count() -> None:
    space = Space(
        {
            "lr": LogUniform(1, 100),
            "decay": ZeroOrLogUniform(0.1, 10),
            "solver": Choice(("qdwh", "newton_schulz")),
            "ns_steps": When(Choice((3, 5)), (("solver", ("newton_schulz",)),)),
            "scale": Fixed("mean"),
        }
    )
    grid = list(space.grid(2))
    assert len(grid) == 2 * 3 * (1 + 2)
    assert len({str(config) for config in grid}) == len(grid)
    assert all(space.problems_with(config) == [] for config in grid)
    assert {config["lr"] for config in grid} == {1, 100}
    assert {config["decay"] for config in grid} == {0, 0.1, 10}


def test_unit_at_finds_where_coordinates_lie_in_the_cube() -> None:
    space = Space({"a": Uniform(-1, 3), "b": ZeroOrLogUniform(0.1, 1), "c": Integer(1, 8), "d": LogInteger(1, 64)})
    for unit in ([0.1, 0.2, 0.3, 0.4, 0.5], [1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]):
        coordinates = space.coordinates_at(unit)
        found = space.unit_at(coordinates)
        assert space.coordinates_at(found) == pytest.approx(coordinates)
        assert found[0] == pytest.approx(unit[0])
        assert all(0 <= each <= 1 for each in found)
