"""Tasks from what a user wrote."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import pytest

from spectune.trainers.tasks import TASKS, task_from_options
from spectune.trainers.tasks.options import TaskOptionError
from spectune.trainers.tasks.task import TRAINING_METRICS


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_stands_under_its_own_name_and_works_with_its_defaults(name: str) -> None:
    task = task_from_options(name, {})
    task.check()
    assert task.name == name
    assert set(TRAINING_METRICS) < set(task.metrics)


def test_options_are_taken_over_and_a_whole_number_serves_as_a_number() -> None:
    task = task_from_options("matrix_completion", {"rows": 10, "observed_fraction": 1})
    given = {"rows": 10, "columns": 250, "rank": 5, "observed_fraction": 1.0}
    assert given.items() <= dataclasses.asdict(task).items()  # type: ignore[call-overload]
    assert type(task.observed_fraction) is float  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "options", "option", "message"),
    [
        ("languag_model", {}, "name", "did you mean 'language_model'"),
        ("poetry", {}, "name", "known: language_model, linear_attention, matrix_completion"),
        ("language_model", {"widht": 64}, "widht", "did you mean 'width'"),
        ("language_model", {"steps": 64}, "steps", "unknown option of language_model"),
        ("language_model", {"width": True}, "width", "must be a whole number: got True"),
        ("language_model", {"width": 64.0}, "width", "must be a whole number: got 64.0"),
        ("language_model", {"width": "64"}, "width", "must be a whole number: got '64'"),
        ("language_model", {"tied_embeddings": 1}, "tied_embeddings", "must be true or false: got 1"),
        ("language_model", {"corpus": 5}, "corpus", "must be a text or must be null: got 5"),
        ("language_model", {"feed_forward": "swigl"}, "feed_forward", "did you mean 'swiglu'"),
        ("matrix_completion", {"observed_fraction": math.nan}, "observed_fraction", "must be finite: got nan"),
        ("matrix_completion", {"observed_fraction": math.inf}, "observed_fraction", "must be finite: got inf"),
        ("matrix_completion", {"observed_fraction": False}, "observed_fraction", "must be a number: got False"),
        ("matrix_completion", {"observed_fraction": None}, "observed_fraction", "must be a number: got None"),
    ],
)
def test_a_name_or_type_that_is_wrong_is_refused(name: str, options: dict[str, Any], option: str, message: str) -> None:
    with pytest.raises(TaskOptionError, match=message) as caught:
        task_from_options(name, options)
    assert caught.value.option == option


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(TaskOptionError("width", "must be at least 1", 0)))
    assert (type(error), error.option, error.value, str(error)) == (
        TaskOptionError,
        "width",
        0,
        "width: must be at least 1: got 0",
    )
