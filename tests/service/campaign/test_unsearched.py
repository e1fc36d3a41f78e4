"""What cannot be searched yet is refused in a sentence; what a schedule takes can be written."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import pytest

from spectune.service.api.examples import SPECIFICATION
from spectune.service.campaign.specification.sections import ScheduleSection
from spectune.service.campaign.specification.specification import parse, restore
from spectune.service.driver.assignments import AssignmentMaker
from spectune.service.errors import Problem, SpecificationError
from spectune.trainers.schedules import DEFAULTS, TAKES, Schedule

TASK = "options of a task cannot be searched yet"
SCHEDULE = "a schedule cannot be searched yet"


def problems(**changes: Any) -> list[Problem]:
    with pytest.raises(SpecificationError) as caught:
        parse(copy.deepcopy(SPECIFICATION) | changes)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("section", "name", "domain", "sentence"),
    [
        ("task", "rank", {"choice": [2, 4]}, TASK),
        ("task", "rows", {"integer": [10, 20]}, TASK),
        ("task", "steps", {"log_integer": [10, 100]}, TASK),
        ("task", "no_option", {"uniform": [0, 1], "when": {"rank": 2}}, TASK),
        ("schedule", "warmup_fraction", {"uniform": [0.0, 0.2]}, SCHEDULE),
        ("schedule", "shape", {"choice": ["cosine", "linear"]}, SCHEDULE),
        ("schedule", "final_fraction", {"fixed": 0.1}, SCHEDULE),
    ],
)
def test_a_domain_where_a_value_stands_is_refused_in_a_sentence(
    section: str, name: str, domain: Any, sentence: str
) -> None:
    given = {**SPECIFICATION.get(section, {}), name: domain}
    (problem,) = problems(**{section: given})
    assert problem.pointer == f"/{section}/{name}"
    assert problem.message == f"{sentence}; only an optimizer's hyperparameters can, in the space of an arm"


def test_an_option_of_the_task_in_an_arms_space_is_explained_and_another_name_is_not() -> None:
    arms = [{"optimizer": "muon", "space": {"rank": {"choice": [2, 4]}, "lrr": {"log_uniform": [0.1, 1.0]}}}]
    other, option = problems(arms=arms)
    assert (option.pointer, other.pointer) == ("/arms/0/space/rank", "/arms/0/space/lrr")
    assert option.message.endswith(TASK)
    assert TASK not in other.message


def test_every_option_of_a_schedule_can_be_written_in_a_campaign() -> None:
    assert set(ScheduleSection.model_fields) == {field.name for field in fields(Schedule)}
    assert {name for options in TAKES.values() for name in options} < set(ScheduleSection.model_fields)
    assert DEFAULTS.keys() < ScheduleSection.model_fields.keys()


@pytest.mark.parametrize("shape", ["cosine", "linear", "wsd"])
def test_a_final_fraction_reaches_the_trials_and_stored_campaigns_keep_theirs(shape: str) -> None:
    specification = parse(SPECIFICATION | {"schedule": {"shape": shape, "final_fraction": 0.25}})
    stored = specification.document()
    schedule = AssignmentMaker(restore(stored)).setting(arm=0, config={"lr": 0.1}, seed_index=0).schedule
    assert schedule == Schedule(shape=shape, final_fraction=0.25)
    del stored["schedule"]["final_fraction"]  # as campaigns were stored before it could be written
    older = AssignmentMaker(restore(stored)).setting(arm=0, config={"lr": 0.1}, seed_index=0).schedule
    assert older == Schedule(shape=shape)


@pytest.mark.parametrize(("shape", "value"), [("constant", 0.5), ("cosine", 1.5), ("step", 0.1), ("linear", -0.1)])
def test_a_final_fraction_that_a_shape_does_not_take_is_pointed_at(shape: str, value: float) -> None:
    beside = {"decay_every": 10, "decay_factor": 0.5} if shape == "step" else {}
    (problem,) = problems(schedule={"shape": shape, "final_fraction": value, **beside})
    assert problem.pointer == "/schedule/final_fraction"
