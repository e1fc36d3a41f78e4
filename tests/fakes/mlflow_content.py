"""What an MLflow holds of a campaign, read through its public client, beside what the ledger holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from spectune.service.ledger import Ledger, ServiceLedger
from spectune.service.tracking.naming import SUMMARY, metric_name


def runs_of(client: MlflowClient, experiment: str, campaign_id: str) -> list[Run]:
    """List all runs of a campaign."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs: list[Run] = []
    token: str | None = None
    while True:
        order = f"tags.campaign = '{campaign_id}'"
        page = client.search_runs([found.experiment_id], order, max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def points_of(client: MlflowClient, run: Run, names: Collection[str]) -> set[tuple[str, int, int, str]]:
    """Return every point of these metrics of a run; values as text, so that NaN equals itself."""
    return {
        (name, point.step, point.timestamp, repr(point.value))
        for name in names
        for point in client.get_metric_history(run.info.run_id, name)
    }


def content(client: MlflowClient, experiment: str, campaign_id: str) -> dict[str, Any]:
    """Return everything that a campaign's runs hold, by name; ids, which are random, become names."""
    runs = runs_of(client, experiment, campaign_id)
    names = {run.info.run_id: run.info.run_name for run in runs}
    held = {}
    for run in runs:
        tags = {key: _named(value, names) for key, value in run.data.tags.items()}
        times = (run.info.status, run.info.start_time, run.info.end_time, run.info.lifecycle_stage, run.info.user_id)
        latest = {name: repr(value) for name, value in run.data.metrics.items()}
        held[run.info.run_name] = (tags, run.data.params, times, latest, points_of(client, run, run.data.metrics))
    assert len(held) == len(runs), "no run is there twice"
    return held


def _named(text: str, names: Mapping[str, str]) -> str:
    for run_id, name in names.items():
        text = text.replace(run_id, name)
    return text


def assert_equals_ledger(
    client: MlflowClient, experiment: str, ledger: Ledger | ServiceLedger, campaign_id: str, *, is_over: bool = True
) -> None:
    """Compare runs, parameters and every point with the ledger."""
    runs = runs_of(client, experiment, campaign_id)
    (parent,) = [run for run in runs if run.data.tags["kind"] == "campaign"]
    assert parent.data.params["task"] == ledger.campaign(campaign_id).specification["task"]["name"]
    children = {int(run.data.tags["trial"]): run for run in runs if run is not parent}
    trials = ledger.trials(campaign_id)
    assert sorted(children) == [trial.number for trial in trials]
    assert len(runs) == len(trials) + 1, "no run is there twice"
    for child in children.values():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params["optimizer"] in {"muon", "adamw"}
        assert "lr" in child.data.params
    expected: dict[int, set[tuple[str, int, int, str]]] = {trial.number: set() for trial in trials}
    for each in ledger.observations(campaign_id):
        expected[each.trial] |= {
            (metric_name(name), each.step, each.produced_at, _stored(value)) for name, value in each.metrics.items()
        }
    for number, points in expected.items():
        child = children[number]
        assert points_of(client, child, child.data.metrics.keys() - set(SUMMARY)) == points
    if is_over:
        assert not [run for run in runs if run.info.status in ("RUNNING", "SCHEDULED")]


def _stored(value: float) -> str:
    """Return a value as MLflow's SQL store gives it back: infinities are the greatest double there."""
    return {"inf": "1.7976931348623157e+308", "-inf": "-1.7976931348623157e+308"}.get(repr(value), repr(value))
