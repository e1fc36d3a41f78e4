"""`spectune show` says where in MLflow a campaign is, or why nobody knows."""

from __future__ import annotations

from spectune.service.cli.remote import tracking_lines


def test_each_page_is_named_with_what_it_shows() -> None:
    lines = tracking_lines(
        {"run": "http://m/#/run", "trials": "http://m/#/trials", "best": None, "problem": None, "num_untold": 0}
    )
    assert lines == ["the campaign: http://m/#/run", "its trials and their curves: http://m/#/trials"]


def test_what_mlflow_does_not_hold_yet_is_said() -> None:
    nothing = dict.fromkeys(("run", "trials", "best", "problem"))
    assert tracking_lines({**nothing, "num_untold": 1}) == [
        "MLflow does not hold the campaign yet",
        "1 change is not in MLflow yet",
    ]


def test_an_mlflow_that_cannot_be_asked_is_said_with_the_reason() -> None:
    assert tracking_lines({"problem": "it does not answer", "num_untold": 3}) == [
        "MLflow: it does not answer",
        "3 changes are not in MLflow yet",
    ]
