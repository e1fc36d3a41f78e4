"""The search of one arm: no repeats, no dependence on timing where that was asked for, and faithful rebuilding."""

from __future__ import annotations

import json
import math
import random
from statistics import median
from typing import Any

import pytest

from spectune.search_spaces import (
    Choice,
    Fixed,
    Integer,
    LogUniform,
    OneMinusLogUniform,
    Space,
    Uniform,
    When,
    ZeroOrLogUniform,
)
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.outcomes import SeedHistory, point_outcome
from spectune.service.campaign.model.points import Origin, Point
from spectune.service.campaign.search.adaptive import NUM_STARTUP
from spectune.service.campaign.study import ArmStudy, NoPoint

SPACE = Space(
    {
        "lr": LogUniform(1e-4, 1e-1),
        "momentum": OneMinusLogUniform(0.8, 0.99),
        "solver": Choice(("newton_schulz", "svd")),
        "ns_steps": When(Integer(1, 8), (("solver", ("newton_schulz",)),)),
        "weight_decay": ZeroOrLogUniform(1e-3, 0.3),
    }
)
PLAIN = Space(
    {
        "lr": LogUniform(1e-4, 1e-1),
        "momentum": OneMinusLogUniform(0.8, 0.99),
        "ns_steps": Integer(1, 8),
        "weight_decay": ZeroOrLogUniform(1e-3, 0.3),
    }
)
SAMPLERS = ["random", "sobol", "grid", "tpe", pytest.param("gp", marks=pytest.mark.slow), "cmaes", "nsga2"]
SMALL = Space({"a": Choice((1, 2, 3)), "b": Choice((True, False))})


def _study(**changes: Any) -> ArmStudy:
    settings = {"space": SPACE, "fixed": {"nesterov": True}, "sampler": "tpe", "points": 32, "search_seed": 5}
    settings |= changes
    settings |= _needs(settings)
    return ArmStudy(settings.pop("space"), settings.pop("fixed"), **settings)


def _needs(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a sampler cannot do without: a space it takes, a second objective, levels for its reals."""
    match settings["sampler"]:
        case "gp" | "cmaes":
            return {"space": PLAIN if settings["space"] is SPACE else settings["space"]}
        case "nsga2":
            return {"modes": ("minimize", "maximize")}
        case "grid":
            return {"num_levels": 3}
    return {}


def _loss(config: Any) -> float:
    return (math.log10(config["lr"]) + 2) ** 2 + config["weight_decay"] + (1 - config["momentum"])


def _end(study: ArmStudy, point: Point, *, seed_index: int = 0) -> None:
    """End a trial in a way that depends on its point alone: most complete, some stop, diverge or fail."""
    value = _loss(point.config) + seed_index
    study.report(point.index, seed_index, 10, value + 1)
    match point.index % 8:
        case 3:
            study.finish(point.index, seed_index, TrialState.STOPPED)
        case 5:
            study.report(point.index, seed_index, 20, math.nan)
            study.finish(point.index, seed_index, TrialState.DIVERGED)
        case 6:
            study.finish(point.index, seed_index, TrialState.FAILED)
        case _:
            study.report(point.index, seed_index, 20, value)
            study.finish(point.index, seed_index, TrialState.COMPLETED, value, (-point.config["lr"],))


def _run(study: ArmStudy, *, order_seed: int = 0) -> list[Point]:
    """Ask whenever there is a point to be had, else end an open one taken at random."""
    generator = random.Random(order_seed)
    points: list[Point] = []
    open_points: list[Point] = []
    while True:
        while (point := study.ask()) is not None and generator.random() < 0.7:
            points.append(point)
            open_points.append(point)
        if point is not None:
            points.append(point)
            open_points.append(point)
        if not open_points:
            return points
        _end(study, open_points.pop(generator.randrange(len(open_points))))


# What is asked


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_arm_gives_all_its_points_all_different_and_inside_the_space(sampler: str) -> None:
    num_points = 14 if sampler == "gp" else 32  # a Gaussian process takes a tenth of a second an ask
    space = PLAIN if sampler in ("gp", "cmaes") else SPACE
    study = _study(sampler=sampler, points=num_points)
    points = _run(study)
    assert [point.index for point in points] == list(range(num_points))
    assert study.no_point is NoPoint.POINTS_GIVEN
    assert study.no_point.is_final
    assert len({json.dumps(point.config, sort_keys=True) for point in points}) == num_points
    for point in points:
        own = {name: value for name, value in point.config.items() if name != "nesterov"}
        assert space.problems_with(own) == []
        assert point.config["nesterov"] is True
        assert list(point.coordinates) == list(space.axes)


@pytest.mark.parametrize("sampler", ["random", "sobol", "grid"])
def test_some_points_depend_on_search_seed_arm_and_index_alone(sampler: str) -> None:
    points = _run(_study(sampler=sampler))
    fresh = _study(sampler=sampler, points=100)
    assert [fresh.ask() for _ in range(32)] == points  # none had to wait, none looked at an outcome
    assert _run(_study(sampler=sampler, search_seed=6))[:3] != points[:3]
    assert _run(_study(sampler=sampler, arm_index=1))[:3] != points[:3]


def test_the_first_sobol_points_fill_every_axis_evenly() -> None:
    study = _study(space=Space({"a": Uniform(0, 1), "b": Uniform(0, 1)}), sampler="sobol", points=16)
    points = list(iter(study.ask, None))
    for name in ("a", "b"):
        assert sorted(int(16 * point.config[name]) for point in points) == list(range(16))


def test_a_grid_is_given_whole_each_point_once_and_then_the_arm_ends_with_its_reason() -> None:
    space = Space({"a": Choice((1, 2)), "b": LogUniform(1, 100), "c": When(Integer(0, 1), (("a", (2,)),))})
    initial = {"a": 1, "b": 10.0}
    study = _study(space=space, sampler="grid", points=20, fixed={}, initial_points=[initial])
    configs = [point.config for point in iter(study.ask, None)]
    assert configs[0] == initial
    expected = [{"a": 1, "b": b} for b in (1, 10, 100)] + [
        {"a": 2, "b": b, "c": c} for b in (1, 10, 100) for c in (0, 1)
    ]
    assert sorted(map(str, configs)) != sorted(map(str, expected[1:]))  # the check can fail
    assert len(configs) == len(expected)
    assert all(any(config == pytest.approx(each) for each in expected) for config in configs)
    assert study.no_point is NoPoint.SPACE_EXHAUSTED


def test_random_points_are_these_numbers_in_every_release() -> None:
    study = ArmStudy(Space({"lr": LogUniform(1e-4, 1e-1)}), {}, sampler="random", points=3, search_seed=0)
    drawn = [point.config["lr"] for point in iter(study.ask, None)]
    assert drawn == pytest.approx([0.007040393881643353, 0.010496258820834914, 0.00011389707231107478], rel=1e-12)


def _best_of_a_bowl(sampler: str, search_seed: int) -> float:
    """Search a bowl in three dimensions; what is far from its bottom is stopped early."""
    space = Space({name: LogUniform(1e-4, 1) for name in ("a", "b", "c")})
    study = _study(space=space, sampler=sampler, points=40, search_seed=search_seed)
    best = math.inf
    while (point := study.ask()) is not None:
        value = sum((math.log10(point.config[name]) + 2.5) ** 2 for name in ("a", "b", "c"))
        study.report(point.index, 0, 10, value)
        study.finish(point.index, 0, TrialState.STOPPED if value > 2 else TrialState.COMPLETED, value)
        best = min(best, value)
    return best


@pytest.mark.parametrize(
    ("sampler", "factor"), [("tpe", 2), ("cmaes", 2), pytest.param("gp", 50, marks=pytest.mark.slow)]
)
def test_adaptive_samplers_find_better_points_than_random_search(sampler: str, factor: float) -> None:
    search_seeds = range(1 if sampler == "gp" else 5)
    found, random_found = (median(_best_of_a_bowl(each, seed) for seed in search_seeds) for each in (sampler, "random"))
    assert factor * found < random_found


def test_nsga2_crosses_the_points_that_nothing_dominates() -> None:
    """The two objectives agree on `a` and disagree on `b`: what it draws later has a small a, and every b."""
    space = Space({"a": Uniform(0, 1), "b": Uniform(0, 1)})
    study = _study(space=space, sampler="nsga2", points=120)
    points = []
    while (point := study.ask()) is not None:
        points.append(point)
        a, b = point.config["a"], point.config["b"]
        study.finish(point.index, 0, TrialState.COMPLETED, a + b, (b - a,))
    late = points[80:]
    assert sum(point.config["a"] for point in late) / len(late) < 0.38  # half of all values are mutated at random
    assert 0.25 < sum(point.config["b"] for point in late) / len(late) < 0.75


def test_a_second_objective_that_is_not_finite_makes_the_point_diverge() -> None:
    study = _study(sampler="nsga2")
    study.ask()
    study.finish(0, 0, TrialState.COMPLETED, 1.0, (math.nan,))
    assert point_outcome(list(study.history()[0][1].values())) is TrialState.DIVERGED


@pytest.mark.parametrize(("points", "num_open"), [(32, 4), (7, 1)])
def test_an_adaptive_sampler_has_few_points_open_at_a_time(points: int, num_open: int) -> None:
    study = _study(points=points)
    given = [study.ask() for _ in range(num_open)]
    assert None not in given
    assert study.ask() is None
    assert study.no_point is NoPoint.WAITING
    assert not study.no_point.is_final
    study.finish(0, 0, TrialState.FAILED)
    assert study.ask() is not None


@pytest.mark.parametrize("sampler", ["random", "sobol", "grid", "tpe", "gp", "nsga2"])
def test_a_space_with_fewer_points_than_asked_for_is_given_whole_and_then_ends_with_its_reason(sampler: str) -> None:
    study = _study(space=SMALL, sampler=sampler, points=20, fixed={})
    points = []
    while (point := study.ask()) is not None:
        points.append(point)
        study.finish(point.index, 0, TrialState.COMPLETED, float(point.config["a"]), (1.0,))
    assert len(points) == 6
    assert study.no_point is NoPoint.SPACE_EXHAUSTED


def test_where_tpe_only_repeats_itself_the_point_is_drawn_at_random_and_says_so() -> None:
    space = Space({"a": Integer(1, 40)})
    study = _study(space=space, points=40, fixed={})
    points = []
    while (point := study.ask()) is not None:
        points.append(point)
        study.finish(point.index, 0, TrialState.COMPLETED, abs(point.config["a"] - 20.0))
    assert sorted(point.config["a"] for point in points) == list(range(1, 41))
    assert {point.origin for point in points} == {Origin.SAMPLER, Origin.REDRAWN}


def test_a_space_without_axes_has_one_point() -> None:
    study = _study(space=Space({"lr": Fixed(0.1)}), points=5)
    first = study.ask()
    assert first is not None
    assert first.config == {"lr": 0.1, "nesterov": True}
    study.finish(0, 0, TrialState.FAILED)
    assert study.ask() is None
    assert study.no_point is NoPoint.SPACE_EXHAUSTED


def test_an_initial_point_gets_what_its_space_fixes() -> None:
    space = Space({"lr": LogUniform(1e-4, 1e-1), "scale": Fixed("nuclear_mean")})
    point = _study(space=space, initial_points=[{"lr": 0.01}]).ask()
    assert point is not None
    assert point.config == {"lr": 0.01, "nesterov": True, "scale": "nuclear_mean"}


def test_initial_points_come_first_and_repeats_among_them_are_passed_over() -> None:
    first = {"lr": 0.01, "momentum": 0.9, "solver": "svd", "weight_decay": 0}
    again = {"solver": "svd", "lr": 0.01 + 1e-17, "momentum": 0.9, "weight_decay": 0.0}
    second = first | {"lr": 0.02, "solver": "newton_schulz", "ns_steps": 5}
    study = _study(sampler="random", initial_points=[first, again, second])
    points = [study.ask() for _ in range(3)]
    assert [point and point.origin for point in points] == [Origin.INITIAL, Origin.INITIAL, Origin.SAMPLER]
    assert points[1] is not None
    assert points[1].config == {"nesterov": True, **second}
    assert list(points[1].coordinates) == list(SPACE.axes)


# What is told


def test_a_trial_may_be_told_twice_but_not_otherwise() -> None:
    study = _study()
    study.ask()
    study.report(0, 0, 10, 1.0)
    study.report(0, 0, 10, 2.0)
    study.finish(0, 0, TrialState.COMPLETED, 1.0)
    study.finish(0, 0, TrialState.COMPLETED, 1.0)
    assert study.history()[0][1] == {0: SeedHistory({10: 1.0}, TrialState.COMPLETED, 1.0)}
    with pytest.raises(ValueError, match=r"ended as COMPLETED: got FAILED"):
        study.finish(0, 0, TrialState.FAILED)
    with pytest.raises(ValueError, match=r"a trial does not end so: got RUNNING"):
        study.finish(0, 0, TrialState.RUNNING)


def test_a_point_is_open_until_all_its_seeds_have_ended() -> None:
    study = _study(points=8, seeds=2)
    study.ask()
    study.finish(0, 0, TrialState.COMPLETED, 1.0)
    assert study.no_point is NoPoint.WAITING
    study.finish(0, 1, TrialState.COMPLETED, 3.0)
    assert study.no_point is None


# Not depending on time


def test_deterministic_points_do_not_depend_on_the_order_in_which_trials_end() -> None:
    runs = [_run(_study(deterministic=True, seeds=1), order_seed=seed) for seed in range(3)]
    assert all(points == runs[0] for points in runs)
    assert sum(point.origin is Origin.SAMPLER for point in runs[0][NUM_STARTUP:]) > 10


def test_otherwise_they_do_which_shows_that_the_test_above_can_fail() -> None:
    runs = [_run(_study(), order_seed=seed) for seed in range(2)]
    assert any(points != runs[0] for points in runs)


def test_a_generation_begins_when_the_one_before_has_ended() -> None:
    study = _study(deterministic=True, points=24)
    for _ in range(3):
        assert study.ask() is not None
    study.finish(1, 0, TrialState.FAILED)
    study.finish(2, 0, TrialState.FAILED)
    assert study.no_point is NoPoint.WAITING
    study.finish(0, 0, TrialState.FAILED)
    assert [study.ask() is None for _ in range(4)] == [False, False, False, True]


# Rebuilding


def _through_json(study: ArmStudy) -> list[tuple[Point, dict[int, SeedHistory]]]:
    """Take a study's history the way the ledger does: index, config and ask as JSON."""
    return [
        (Point.from_ask(point.index, json.loads(json.dumps(point.config)), json.loads(json.dumps(point.ask))), seeds)
        for point, seeds in study.history()
    ]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("num_before", [2, 13, 16])
def test_a_restored_study_asks_what_the_uninterrupted_one_asks(
    sampler: str, deterministic: bool, num_before: int
) -> None:
    plain = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0, "ns_steps": 5}
    initial = [plain if sampler in ("gp", "cmaes") else {**plain, "solver": "newton_schulz"}]
    settings = {"sampler": sampler, "deterministic": deterministic, "seeds": 2, "initial_points": initial}
    whole = _study(**settings)
    open_points: list[Point] = []
    while len(whole.history()) < num_before:
        point = whole.ask()
        if point is not None:
            open_points.append(point)
            continue
        ended = open_points.pop(0)
        for seed_index in range(2):
            _end(whole, ended, seed_index=seed_index)
    if open_points:
        _end(whole, open_points[0], seed_index=1)  # half of a point

    restored = _study(**settings)
    restored.restore(reversed(_through_json(whole)))
    assert restored.history() == whole.history()
    for study in (whole, restored):
        for point in open_points:
            for seed_index in range(2):
                _end(study, point, seed_index=seed_index)
    for _ in range(4):
        point = whole.ask()
        assert point == restored.ask()
        if point is not None:
            for study in (whole, restored):
                for seed_index in range(2):
                    _end(study, point, seed_index=seed_index)


def test_seeds_that_the_ledger_does_not_know_yet_are_open() -> None:
    whole = _study(seeds=2)
    point = whole.ask()
    assert point is not None
    restored = _study(seeds=2)
    restored.restore([(point, {0: SeedHistory({}, TrialState.COMPLETED, 1.0)})])
    assert restored.history()[0][1][1] == SeedHistory()
