"""What one section of a specification asks of another."""

from __future__ import annotations

from typing import Any

import pytest

from spectune.service.campaign.specification.catalog import Catalog
from spectune.service.campaign.specification.specification import Specification, parse
from spectune.service.errors import SpecificationError

Document = dict[str, Any]


@pytest.fixture
def plain(document: Document) -> Document:
    """Return a campaign of one arm whose space every sampler takes."""
    space = {"lr": {"log_uniform": [0.001, 0.1]}, "ns_steps": {"integer": [1, 3]}, "percentile": {"choice": [0.8, 1]}}
    document["arms"] = [{"optimizer": "root", "space": space}]
    document["initial_points"] = []
    document["stopping"] = {"rule": "none"}
    return document


def _refusals(document: Document, catalog: Catalog) -> list[str]:
    with pytest.raises(SpecificationError) as caught:
        parse(document, catalog=catalog)
    return [str(problem) for problem in caught.value.problems]


def _search(document: Document, **options: Any) -> Document:
    document["search"] = {"points": 32, **options}
    return document


# Samplers and spaces


@pytest.mark.parametrize("sampler", ["random", "sobol", "tpe", "gp", "cmaes"])
def test_a_plain_space_is_taken_by_every_sampler(plain: Document, catalog: Catalog, sampler: str) -> None:
    assert parse(_search(plain, sampler=sampler), catalog=catalog).search.sampler == sampler


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_conditions_are_refused_where_they_cannot_be_modelled(plain: Document, catalog: Catalog, sampler: str) -> None:
    plain["arms"][0]["space"]["ns_steps"]["when"] = {"percentile": [1]}
    (refusal,) = _refusals(_search(plain, sampler=sampler), catalog)
    assert refusal.startswith(f"/arms/0/space/ns_steps: the sampler '{sampler}' takes no `when`; random, grid, sobol")


def test_cmaes_needs_axes_with_an_order(plain: Document, catalog: Catalog) -> None:
    plain["arms"][0]["space"]["percentile"]["choice"] = [0.8, 0.9, 1]
    (refusal,) = _refusals(_search(plain, sampler="cmaes"), catalog)
    assert refusal.startswith("/arms/0/space/percentile: the sampler 'cmaes' needs an order")
    plain["arms"][0]["space"] = {"lr": {"log_uniform": [0.001, 0.1]}}
    (refusal,) = _refusals(plain, catalog)
    assert refusal == "/arms/0/space: the sampler 'cmaes' needs 2 to 100 axes, and this space has 1: got 'root'"


def test_a_gaussian_process_takes_no_more_points_than_it_can_think_about(plain: Document, catalog: Catalog) -> None:
    assert "at most 1000 points" in _refusals(_search(plain, sampler="gp", points=1001), catalog)[0]


def test_a_grid_needs_levels_where_there_are_reals(plain: Document, catalog: Catalog) -> None:
    (refusal,) = _refusals(_search(plain, sampler="grid"), catalog)
    assert refusal.startswith("/arms/0/space/lr: a grid has no end of values here: give search.levels, or a choice")
    assert parse(_search(plain, sampler="grid", levels=5), catalog=catalog).search.levels == 5


def test_levels_are_refused_where_there_is_no_grid(plain: Document, catalog: Catalog) -> None:
    assert _refusals(_search(plain, levels=5), catalog) == [
        "/search/levels: the sampler 'random' does not take it; grid does: got 5"
    ]


def test_a_grid_larger_than_its_budget_is_refused(plain: Document, catalog: Catalog) -> None:
    parse(_search(plain, sampler="grid", levels=5, points=30), catalog=catalog)
    (refusal,) = _refusals(_search(plain, sampler="grid", levels=5, points=29), catalog)
    assert refusal == "/search/points: too few: the grid of /arms/0/space has more than 29 points: got 29"


def test_initial_points_on_a_grid_count_once(plain: Document, catalog: Catalog) -> None:
    _search(plain, sampler="grid", levels=2, points=12)
    plain["initial_points"] = [{"config": {"lr": 0.001, "ns_steps": 1, "percentile": 1}}]
    parse(plain, catalog=catalog)
    plain["initial_points"] = [{"config": {"lr": 0.002, "ns_steps": 1, "percentile": 1}}]
    (refusal,) = _refusals(plain, catalog)
    assert "has 13 points with the initial ones: got 12" in refusal


def test_adaptive_samplers_warn_where_they_would_only_draw_at_random(plain: Document, catalog: Catalog) -> None:
    def warning(**options: Any) -> list[str]:
        return [each.message for each in parse(_search(plain, **options), catalog=catalog).warnings()]

    assert warning(sampler="gp", points=11) == []
    assert warning(sampler="gp", points=10) == [
        "gp draws at random until 10 points have ended, so this is random search"
    ]
    assert warning(sampler="cmaes", points=7) == [
        "cmaes draws at random until 7 points have ended, so this is random search"
    ]


# Objectives


TWO = [{"metric": "validation_loss"}, {"metric": "loss", "mode": "maximize"}]


def _two(document: Document, **search: Any) -> Specification | Document:
    document["objective"] = [dict(each) for each in TWO]
    return _search(document, **search)


@pytest.mark.parametrize("sampler", ["nsga2", "random", "sobol"])
def test_two_objectives_are_read_and_written(plain: Document, catalog: Catalog, sampler: str) -> None:
    specification = parse(_two(plain, sampler=sampler), catalog=catalog)
    assert [(each.metric, each.mode) for each in specification.objectives] == [
        ("validation_loss", "minimize"),
        ("loss", "maximize"),
    ]
    assert specification.objective == specification.objectives[0]
    assert parse(specification.document(), catalog=catalog) == specification


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_samplers_for_one_objective_refuse_two(plain: Document, catalog: Catalog, sampler: str) -> None:
    assert _refusals(_two(plain, sampler=sampler), catalog) == [
        f"/search/sampler: this sampler needs one objective, not 2: got '{sampler}'"
    ]


def test_nsga2_refuses_one_objective(plain: Document, catalog: Catalog) -> None:
    assert _refusals(_search(plain, sampler="nsga2"), catalog) == [
        "/search/sampler: this sampler needs two objectives, not 1: got 'nsga2'"
    ]


def test_with_two_objectives_nothing_is_stopped_early(plain: Document, catalog: Catalog) -> None:
    plain["stopping"] = {"rule": "successive_halving", "min_steps": 200}
    (refusal,) = _refusals(_two(plain), catalog)
    assert refusal.startswith("/stopping/rule: with two objectives no trial is stopped early")


def test_with_two_objectives_there_are_no_finals(plain: Document, catalog: Catalog) -> None:
    (refusal,) = _refusals(_two({**plain, "finals": {"keep": 2}}), catalog)
    assert refusal.startswith("/finals: with two objectives no point is the best")


@pytest.mark.parametrize(
    ("objective", "refusal"),
    [
        ([TWO[0]], "/objective: one objective or a list of two is needed"),
        ([*TWO, TWO[0]], "/objective: one objective or a list of two is needed"),
        ([TWO[0], TWO[0]], "/objective/1/metric: this is the first objective already"),
        ([TWO[0], {"metric": "los"}], "/objective/1/metric: unknown metric"),
        ([TWO[0], "loss"], "/objective/1: a mapping is needed"),
        ([{**TWO[0], "every_steps": 10}, {**TWO[1], "every_steps": 20}], "/objective/1/every_steps: both are reported"),
    ],
)
def test_mistakes_in_two_objectives_are_told_at_their_place(
    plain: Document, catalog: Catalog, objective: list[Any], refusal: str
) -> None:
    plain["objective"] = objective
    assert _refusals(_search(plain), catalog)[0].startswith(refusal)


# Finals, audits, budgets


@pytest.mark.parametrize(
    ("sections", "refusal"),
    [
        ({"finals": {"keep": 33}}, "/finals/keep: more than the 32 points of an arm: got 33"),
        ({"finals": {"seeds": 1}}, "/finals/seeds: input must be greater than or equal to 2: got 1"),
        ({"finals": {"kep": 1}}, "/finals/kep: unknown key; did you mean 'keep'?: got 'kep'"),
        ({"budget": {"trials": 0}}, "/budget/trials: input must be greater than or equal to 1: got 0"),
        ({"budget": {"device_seconds": 0}}, "/budget/device_seconds: input must be greater than 0: got 0"),
        ({"budget": {"wall_second": 1}}, "/budget/wall_second: unknown key; did you mean 'wall_seconds'?"),
        ({"stopping": {"rule": "none", "audit": 3}}, "/stopping/audit: the rule 'none' does not take it: got 3"),
        ({"target": "low"}, "/target: a number is needed: the objective at which the campaign ends: got 'low'"),
        ({"stopping": {"rule": "median"}}, "/stopping/min_steps: missing"),
        (
            {"stopping": {"rule": "median", "min_steps": 200, "reduction_factor": 3}},
            "/stopping/reduction_factor: the rule 'median' does not take it: got 3",
        ),
        ({"stopping": {"rule": "hyperban"}}, "/stopping/rule: input must be 'none', 'successive_halving', 'hyperband'"),
    ],
)
def test_mistakes_in_amounts_are_told_at_their_place(
    plain: Document, catalog: Catalog, sections: Document, refusal: str
) -> None:
    (told,) = _refusals(_search({**plain, **sections}), catalog)
    assert told.startswith(refusal)


def test_a_budget_that_cannot_hold_a_point_of_every_arm_is_refused(document: Document, catalog: Catalog) -> None:
    document["budget"] = {"trials": 3}
    assert _refusals(document, catalog) == [
        "/budget/trials: must be at least 4, or not every arm could try one point: got 3"
    ]


def test_a_budget_too_small_for_the_finals_draws_a_warning(plain: Document, catalog: Catalog) -> None:
    document = _search({**plain, "finals": {"seeds": 8}, "budget": {"trials": 39}})
    (warning,) = parse(document, catalog=catalog).warnings()
    assert str(warning) == (
        "/budget/trials: an arm's share is 39 trials, but search, finals and audit may take 40: got 39"
    )
    document["budget"] = {"trials": 40}
    assert parse(document, catalog=catalog).warnings() == []


def test_a_small_audit_draws_a_warning(plain: Document, catalog: Catalog) -> None:
    plain["stopping"] = {"rule": "median", "min_steps": 200, "audit": 9}
    (warning,) = parse(_search(plain), catalog=catalog).warnings()
    assert warning.pointer == "/stopping/audit"


def test_the_median_compares_at_every_report_from_its_first_step_on(plain: Document, catalog: Catalog) -> None:
    plain["stopping"] = {"rule": "median", "min_steps": 150}
    plain["objective"]["every_steps"] = 100
    specification = parse(_search(plain), catalog=catalog)
    assert specification.rungs() == (200, 300)
    assert specification.report_steps() == (100, 200, 300, 400)
