"""What metrics are called in MLflow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from spectune.service.tracking.naming import NAMES, SUMMARY, metric_name
from spectune.trainers.tasks import TASKS


def test_every_metric_of_a_task_has_a_name_and_no_two_share_one() -> None:
    reported = {name for task in TASKS.values() for name in task.metrics}
    assert reported >= NAMES.keys()
    assert len({metric_name(name) for name in reported}) == len(reported)
    assert metric_name("validation_loss") == "loss/validation"


def test_a_metric_of_a_users_own_keeps_its_name_unless_it_would_hide_another() -> None:
    assert metric_name("perplexity") == "perplexity"
    assert metric_name("spectral/update_rms") == "spectral/update_rms"
    assert {metric_name(name) for name in SUMMARY} == {f"{name}_reported" for name in SUMMARY}
    assert metric_name("loss/train") != metric_name("loss")


@given(st.text(max_size=300))
def test_mlflow_takes_every_name(reported: str) -> None:
    _validate_metric_name(metric_name(reported))


LOOK_ALIKE = st.text(st.sampled_from("ab?*_/.: é"), max_size=6)


@given(
    st.lists(st.one_of(LOOK_ALIKE, st.sampled_from(["best", "loss", "loss/train", "x" * 260, "x" * 261])), max_size=30)
)
def test_no_two_metrics_become_one(reported: list[str]) -> None:
    names = set(reported)
    names |= {metric_name(name) for name in names}  # what others are called could be a metric's own name, too
    names |= {metric_name(name) for name in names}
    assert len({metric_name(name) for name in names}) == len(names)


def test_names_that_mlflow_refuses_are_told_apart_and_stay_what_they_are() -> None:
    assert metric_name("a?b") != metric_name("a*b")
    assert metric_name("a?b").startswith("a_b:")
    assert metric_name("a?b") == metric_name("a?b")
    assert metric_name("x" * 300) != metric_name("x" * 301)
    assert metric_name("best_reported") != metric_name("best")
    assert metric_name("../a") != metric_name("a") != metric_name("metric_.._a")
