"""Specifications: what they mean, and what is refused at which place."""

from __future__ import annotations

import copy
import datetime
import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectune.search_spaces import default_space
from spectune.service.campaign.specification.catalog import Catalog, installed_catalog
from spectune.service.campaign.specification.specification import Specification, parse, restore
from spectune.service.errors import Problem, SpecificationError

Document = dict[str, Any]


def _problems(document: Any, catalog: Catalog) -> list[Problem]:
    with pytest.raises(SpecificationError) as caught:
        parse(document, catalog=catalog)
    return list(caught.value.problems)


def _put(document: Document, pointer: str, value: Any) -> Document:
    *path, last = [int(key) if key.isdigit() else key for key in pointer.split("/")[1:]]
    place: Any = document
    for key in path:
        place = place[key]
    place[last] = value
    return document


# What it means


def test_the_canonical_document_is_json_and_reads_as_the_same_specification(
    document: Document, catalog: Catalog
) -> None:
    specification = parse(document, catalog=catalog)
    canonical = json.loads(json.dumps(specification.document(), allow_nan=False))
    assert canonical == specification.document()
    again = parse(canonical, catalog=catalog)
    assert again == specification
    assert again.document() == canonical


def test_the_canonical_document_holds_the_defaults_of_sections_task_and_space(
    document: Document, catalog: Catalog
) -> None:
    for key in ("schedule", "stopping", "precision", "initial_points", "resources", "tags"):
        del document[key]
    canonical = parse(document, catalog=catalog).document()
    assert canonical["task"] == {"name": "language_model", "steps": 400, "width": 32, "corpus": "built-in"}
    assert canonical["objective"]["every_steps"] == 20
    assert [arm["name"] for arm in canonical["arms"]] == ["root", "muon"]
    expected = {name: domain for name, domain in default_space("muon").document().items() if name != "momentum"}
    assert canonical["arms"][1]["space"] == expected
    assert canonical["stopping"]["rule"] == "none"
    assert canonical["precision"] == "fp32"
    assert canonical["resources"] == {"workers": 1, "cpus": 1, "gpus": 0, "members": "auto"}


def test_without_every_steps_a_trial_reports_at_most_twenty_times_or_so(document: Document, catalog: Catalog) -> None:
    document["task"]["steps"] = 401
    del document["stopping"]
    specification = parse(document, catalog=catalog)
    assert specification.objective.every_steps == 21
    assert specification.report_steps() == (*range(21, 401, 21), 401)


def test_trials_report_at_multiples_rungs_and_the_end(document: Document, catalog: Catalog) -> None:
    document["objective"]["every_steps"] = 150
    document["stopping"]["min_steps"] = 50
    specification = parse(document, catalog=catalog)
    assert specification.rungs() == (50, 150)
    assert specification.report_steps() == (50, 150, 300, 400)


@pytest.mark.parametrize(
    ("min_steps", "factor", "steps", "rungs"),
    [
        (1, 10, 1001, (1, 10, 100, 1000)),  # a logarithm in floats loses the last of these
        (1, 3, 244, (1, 3, 9, 27, 81, 243)),
        (1, 3, 243, (1, 3, 9, 27, 81)),
        (134, 3, 400, (134,)),
    ],
)
def test_rungs_are_counted_in_integers(
    document: Document, catalog: Catalog, min_steps: int, factor: int, steps: int, rungs: tuple[int, ...]
) -> None:
    document["task"]["steps"] = steps
    document["stopping"].update(min_steps=min_steps, reduction_factor=factor)
    assert parse(document, catalog=catalog).rungs() == rungs


def test_an_initial_point_without_an_arm_is_for_every_arm(document: Document, catalog: Catalog) -> None:
    document["arms"] = [
        {"optimizer": "root", "space": {"lr": {"log_uniform": [1e-3, 1e-1]}}, "name": "narrow"},
        {"optimizer": "root", "space": {"lr": {"log_uniform": [1e-4, 1e-1]}}, "name": "wide"},
    ]
    document["initial_points"] = [{"config": {"lr": 0.01}}, {"arm": "wide", "config": {"lr": 0.0002}}]
    specification = parse(document, catalog=catalog)
    assert specification.initial_points_of(0) == [{"lr": 0.01}]
    assert specification.initial_points_of(1) == [{"lr": 0.01}, {"lr": 0.0002}]


# Warnings


def _warnings(specification: Specification) -> list[str]:
    return [problem.pointer for problem in specification.warnings()]


def test_a_reasonable_campaign_draws_no_warning(document: Document, catalog: Catalog) -> None:
    assert _warnings(parse(document, catalog=catalog)) == []


def test_a_first_rung_below_a_third_of_a_falling_schedule_draws_a_warning(document: Document, catalog: Catalog) -> None:
    document["stopping"]["min_steps"] = 133
    assert _warnings(parse(document, catalog=catalog)) == ["/stopping/min_steps"]
    document["schedule"] = {"shape": "constant"}
    assert _warnings(parse(document, catalog=catalog)) == []


def test_a_learning_rate_off_the_log_scale_draws_a_warning(document: Document, catalog: Catalog) -> None:
    document["arms"][0]["space"]["lr"] = {"uniform": [1e-3, 1e-1]}
    document["initial_points"] = []
    assert _warnings(parse(document, catalog=catalog)) == ["/arms/0/space/lr"]


@pytest.mark.parametrize("place", ["fixed", "space"])
def test_a_percentile_of_one_draws_a_warning(document: Document, catalog: Catalog, place: str) -> None:
    document["initial_points"] = []
    del document["arms"][0]["space"]["percentile"]
    document["arms"][0][place]["percentile"] = 1.0 if place == "fixed" else {"fixed": 1.0}
    assert _warnings(parse(document, catalog=catalog)) == [f"/arms/0/{place}/percentile"]


def test_tpe_with_too_few_points_to_model_anything_draws_a_warning(document: Document, catalog: Catalog) -> None:
    document["search"]["points"] = 10
    assert _warnings(parse(document, catalog=catalog)) == ["/search/points"]


def test_what_was_accepted_once_is_read_again_without_looking_at_the_disk(document: Document, catalog: Catalog) -> None:
    document["finals"], document["budget"] = {"keep": 2}, {"trials": 999}
    specification = parse(document, catalog=catalog)
    assert restore(json.loads(json.dumps(specification.document()))) == specification
    canonical = specification.document()
    canonical["task"]["corpus"] = "/nowhere"  # it was there
    assert restore(canonical).task.options["corpus"] == "/nowhere"
    with pytest.raises(SpecificationError, match="no such folder"):
        parse(canonical, catalog=catalog)


def test_a_document_of_an_earlier_release_gets_the_defaults_of_what_came_since(
    document: Document, catalog: Catalog
) -> None:
    canonical = parse(document, catalog=catalog).document()
    for key in ("finals", "target", "budget"):
        del canonical[key]
    del canonical["search"]["levels"]
    del canonical["stopping"]["audit"]
    assert restore(canonical) == parse(document, catalog=catalog)


# What is refused


@pytest.mark.parametrize(
    ("pointer", "value", "at", "message"),
    [
        ("/name", "", "/name", "1 to 200 characters"),
        ("/name", "x" * 201, "/name", "1 to 200 characters"),
        ("/name", 3, "/name", "1 to 200 characters"),
        ("/serach", {}, "/serach", "did you mean 'search'?"),
        ("/task/name", "languge_model", "/task/name", "did you mean 'language_model'?"),
        ("/task/widht", 3, "/task/widht", "did you mean 'width'?"),
        ("/task/corpus", "/nowhere", "/task/corpus", "no such folder"),
        ("/task/steps", 0, "/task/steps", "greater than or equal to 1"),
        ("/task/steps", 400.0, "/task/steps", "valid integer"),
        ("/task/steps", True, "/task/steps", "valid integer"),
        ("/task/steps", "400", "/task/steps", "valid integer"),
        ("/task", "language_model", "/task", "a mapping"),
        ("/objective/metric", "validation_los", "/objective/metric", "did you mean 'validation_loss'?"),
        ("/objective/mode", "min", "/objective/mode", "'minimize' or 'maximize'"),
        ("/objective/every_steps", 401, "/objective/every_steps", "at most the task's 400"),
        ("/arms", [], "/arms", "at least one arm"),
        ("/arms/0", "root", "/arms/0", "a mapping"),
        ("/arms/0/optimizer", "rot", "/arms/0/optimizer", "did you mean 'root'?"),
        ("/arms/0/spcae", {}, "/arms/0/spcae", "did you mean 'space'?"),
        ("/arms/0/space", "defualt", "/arms/0/space", "a mapping"),
        ("/arms/0/space/lr", {"log_unifrm": [1, 2]}, "/arms/0/space/lr/log_unifrm", "did you mean 'log_uniform'?"),
        ("/arms/0/space/lr", {"log_uniform": [1, 0.1]}, "/arms/0/space/lr/log_uniform", "below the high one"),
        ("/arms/0/space/lr", {"log_uniform": ["1e-3", 1]}, "/arms/0/space/lr/log_uniform/0", "write 1.0e-3"),
        ("/arms/0/space/percentle", {"fixed": 1}, "/arms/0/space/percentle", "did you mean 'percentile'?"),
        ("/arms/0/space/percentile", {"uniform": [0.5, 90]}, "/arms/0/space/percentile/uniform", "must lie in [0, 1]"),
        ("/arms/0/space/ns_steps", {"choice": [5, 21]}, "/arms/0/space/ns_steps/choice", "must lie in [1, 20]"),
        ("/arms/0/fixed/momentum", 1.5, "/arms/0/fixed/momentum", "must lie in [0, 1]"),
        ("/arms/0/fixed/momntum", 0.9, "/arms/0/fixed/momntum", "did you mean 'momentum'?"),
        ("/arms/0/fixed/lr", 0.1, "/arms/0/fixed/lr", "in the search space and fixed at once"),
        ("/arms/0/fixed", {"adamw_lr": 1, "adamw_lr_ratio": 1}, "/arms/0/fixed/adamw_lr", "together with"),
        ("/arms/0/space/lr", {"log_uniform": [1e-3, 10.0]}, "/arms/0/space/lr", "lr * weight_decay must stay below 1"),
        ("/arms/0/name", "muon", "/arms/1/name", "another arm has this name"),
        ("/arms/0/name", "a/b", "/arms/0/name", "pattern"),
        ("/search/sampler", "tpee", "/search/sampler", "or 'nsga2'; did you mean 'tpe'?"),
        ("/search/points", 0, "/search/points", "greater than or equal to 1"),
        ("/search/search_seed", -1, "/search/search_seed", "greater than or equal to 0"),
        ("/search/deterministic", 1, "/search/deterministic", "valid boolean"),
        ("/schedule/shape", "wds", "/schedule/shape", "unknown shape"),
        ("/schedule/warmup_fraction", "0.1", "/schedule/warmup_fraction", "valid number"),
        ("/stopping/min_steps", 400, "/stopping/min_steps", "below the task's 400"),
        ("/stopping/min_steps", None, "/stopping/min_steps", "missing"),
        ("/stopping/reduction_factor", 1, "/stopping/reduction_factor", "greater than or equal to 2"),
        ("/precision", "fp23", "/precision", "did you mean 'fp32'?"),
        ("/verify_fusion", "yes", "/verify_fusion", "true or false is needed"),
        ("/initial_points/0/arm", "rot", "/initial_points/0/arm", "did you mean 'root'?"),
        ("/initial_points/0/config/lr", 1, "/initial_points/0/config/lr", "outside [0.0003, 0.1] (arm 'root')"),
        ("/initial_points/0/config", {"lr": 0.01, "ns_steps": 5}, "/initial_points/0/config/percentile", "missing"),
        ("/initial_points", {}, "/initial_points", "a list"),
        ("/resources/gpu", 1, "/resources/gpu", "unknown key"),
        ("/resources/workers", 0, "/resources/workers", "greater than or equal to 1"),
        ("/tags/owner", 3, "/tags/owner", "text is needed"),
        ("/arms/0/fixed/momentum", math.nan, "/arms/0/fixed/momentum", "must be finite"),
        ("/arms/0/space/lr", {"log_uniform": [1e-3, math.inf]}, "/arms/0/space/lr/log_uniform/1", "must be finite"),
        ("/tags/day", datetime.date(2026, 1, 1), "/tags/day", "neither text"),
        ("/tags/owner", "\ud800", "/tags/owner", "not valid text"),
        ("/tags", {3: "x"}, "/tags", "keys must be strings"),
    ],
)
def test_a_mistake_is_told_at_its_place(
    document: Document, catalog: Catalog, pointer: str, value: Any, at: str, message: str
) -> None:
    problems = _problems(_put(document, pointer, value), catalog)
    assert [problem.pointer for problem in problems] == [at]
    assert message in problems[0].message


def test_the_top_corner_counts_the_default_decay_too(document: Document, catalog: Catalog) -> None:
    document["initial_points"] = []
    document["arms"][0]["space"] = {"lr": {"log_uniform": [1.0, 300.0]}}
    (problem,) = _problems(document, catalog)
    assert problem.pointer == "/arms/0/space/lr"
    document["arms"][0]["fixed"] = {"weight_decay": 0.0}
    assert parse(document, catalog=catalog)


def test_options_of_a_stopping_rule_that_is_off_are_refused(document: Document, catalog: Catalog) -> None:
    document["stopping"]["rule"] = "none"
    pointers = [problem.pointer for problem in _problems(document, catalog)]
    assert pointers == ["/stopping/min_steps", "/stopping/reduction_factor"]


def test_more_initial_points_than_points_are_refused(document: Document, catalog: Catalog) -> None:
    document["initial_points"] *= 33
    assert [problem.pointer for problem in _problems(document, catalog)] == ["/initial_points"]


@pytest.mark.parametrize("document_", [None, 3, "text", [], {3: 1}])
def test_what_is_no_mapping_of_names_is_refused(document_: Any, catalog: Catalog) -> None:
    assert _problems(document_, catalog)


def test_an_empty_document_is_told_all_that_is_missing(catalog: Catalog) -> None:
    problems = _problems({}, catalog)
    assert [(problem.pointer, problem.message) for problem in problems] == [
        (pointer, "missing") for pointer in ("/name", "/task", "/objective", "/arms", "/search")
    ]


def test_all_mistakes_are_told_in_one_visit(document: Document, catalog: Catalog) -> None:
    document["task"]["steps"] = -1
    document["arms"][0]["optimizer"] = "rot"
    document["arms"][1]["fixed"]["momentum"] = 2
    document["search"]["points"] = "many"
    document["objective"]["metric"] = "accuracy"
    assert {problem.pointer for problem in _problems(document, catalog)} == {
        "/task/steps",
        "/arms/0/optimizer",
        "/arms/1/fixed/momentum",
        "/search/points",
    }
    document["task"]["steps"] = 400  # the metric can be checked once the task can be read
    assert "/objective/metric" in {problem.pointer for problem in _problems(document, catalog)}


def test_a_message_ends_with_the_value(document: Document, catalog: Catalog) -> None:
    document["arms"][0]["optimizer"] = "rot"
    with pytest.raises(SpecificationError, match=r"^/arms/0/optimizer: .*did you mean 'root'\?: got 'rot'$"):
        parse(document, catalog=catalog)


_HUGE = st.integers() | st.integers(10**4000, 10**5000)  # Python does not write so many digits
_SCALARS = st.none() | st.booleans() | _HUGE | st.floats() | st.text(max_size=5) | st.dates() | st.binary(max_size=3)
_DEEP = st.tuples(st.integers(1, 200), _SCALARS).map(lambda drawn: _nested(*drawn))
_JSON = _DEEP | st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | _HUGE | st.none() | st.tuples(_HUGE), inner, max_size=3)
    ),
    max_leaves=5,
)
_PLACES = [
    *("/name", "/task", "/task/steps", "/objective", "/arms", "/arms/0", "/arms/0/space", "/arms/0/space/lr"),
    *("/arms/0/space/lr/log_uniform", "/arms/0/fixed", "/arms/0/name", "/search", "/search/points", "/schedule"),
    *("/stopping", "/precision", "/initial_points", "/initial_points/0", "/initial_points/0/config", "/tags"),
    *("/finals", "/budget", "/target", "/search/levels", "/search/sampler", "/stopping/audit", "/resources/workers"),
    "/verify_fusion",
]
_FREELY = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # each example copies the document


def _nested(depth: int, value: Any) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def _is_read_or_refused(document: Document, catalog: Catalog) -> None:
    try:
        specification = parse(document, catalog=catalog)
    except SpecificationError as error:
        str(error)  # it can be told
        return
    json.dumps(specification.document(), allow_nan=False)


@_FREELY
@given(place=st.sampled_from(_PLACES), value=_JSON)
def test_whatever_stands_anywhere_is_read_or_refused_but_never_crashes(
    document: Document, catalog: Catalog, place: str, value: Any
) -> None:
    _is_read_or_refused(_put(copy.deepcopy(document), place, value), catalog)


@pytest.mark.slow
@_FREELY
@given(place=st.sampled_from(_PLACES), value=_JSON)
def test_so_it_is_with_the_installed_optimizers_and_tasks(document: Document, place: str, value: Any) -> None:
    document = copy.deepcopy(document)
    document["task"] = {"name": "matrix_completion", "steps": 400}
    _is_read_or_refused(_put(document, place, value), installed_catalog())


@_FREELY
@given(document=_JSON)
def test_whatever_is_given_as_a_whole_is_read_or_refused(document: Any, catalog: Catalog) -> None:
    _is_read_or_refused(document, catalog)


def test_a_key_that_python_does_not_write_is_refused(document: Document, catalog: Catalog) -> None:
    document["tags"] = {10**5000: "x"}
    assert [(each.pointer, each.value) for each in _problems(document, catalog)] == [("/tags", "a value of type int")]


def test_more_arms_or_choices_than_anybody_needs_are_refused(document: Document, catalog: Catalog) -> None:
    choices = {**document, "arms": [{"optimizer": "muon", "space": {"lr": {"choice": list(range(1001))}}}]}
    choices["initial_points"] = []
    (problem,) = _problems(choices, catalog)
    assert str(problem) == (
        "/arms/0/space/lr/choice: at most 1000 values are taken; an integer domain takes more: got 1001"
    )
    arms = {**document, "arms": [{"optimizer": "muon", "name": f"m{index}"} for index in range(65)]}
    assert "/arms: at most 64 arms are taken: got 65" in map(str, _problems(arms, catalog))
