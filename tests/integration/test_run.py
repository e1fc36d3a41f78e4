"""One real campaign from a file to a leaderboard, with MLflow beside it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from spectune.service.campaign.model.records import Observation, TrialRecord
from spectune.service.findings.bundle import read_bundle
from spectune.service.ledger import Ledger
from spectune.service.tracking.mlflow_tracker import EXPERIMENT
from spectune.service.tracking.naming import SUMMARY, metric_name
from tests.integration.conftest import DOCUMENT, SPECTUNE, Outcome, Run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]


def in_ledger(outcome: Outcome) -> tuple[list[TrialRecord], list[Observation]]:
    with Ledger.at(outcome.data.ledger) as ledger:
        (campaign,) = ledger.campaigns()
        return ledger.trials(campaign.campaign_id), ledger.observations(campaign.campaign_id)


def in_mlflow(outcome: Outcome) -> tuple[MlflowClient, MlflowRun, dict[int, MlflowRun]]:
    """Read the campaign back: the parent run, and the children by trial."""
    client = MlflowClient(tracking_uri=outcome.data.mlflow_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    (parent,) = [run for run in runs if run.data.tags["kind"] == "campaign"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    return client, parent, {int(run.data.tags["trial"]): run for run in children}


def assert_mlflow_equals_ledger(outcome: Outcome) -> None:
    trials, observations = in_ledger(outcome)
    client, _, children = in_mlflow(outcome)
    assert sorted(children) == [trial.number for trial in trials]
    for trial in trials:
        child = children[trial.number]
        assert child.data.tags["state"] == trial.state
        assert float(child.data.params["lr"]) == trial.config["lr"]
        mine = [each for each in observations if each.trial == trial.number]
        names = {name for each in mine for name in each.metrics}
        summary = SUMMARY if mine and trial.state.is_terminal else ()
        assert set(child.data.metrics) == {*map(metric_name, names), *summary}
        for name in names:
            expected = [(each.step, repr(each.metrics[name])) for each in mine if name in each.metrics]
            points = client.get_metric_history(child.info.run_id, metric_name(name))
            assert sorted((point.step, repr(point.value)) for point in points) == expected


def test_the_campaign_succeeds_and_says_so_in_json(finished: Outcome) -> None:
    assert finished.exit_status == 0, finished.stderr
    document = finished.document
    assert document["state"] == "SUCCEEDED"
    assert [arm["optimizer"] for arm in document["arms"]] == ["muon", "adamw"]
    for arm in document["arms"]:
        assert arm["num_trials"] == 16
        assert sum(arm["states"].values()) == 16
        assert set(arm["best"]) == {"value", "half_width", "config", "trial"}
    assert document["wall_seconds"] > 0


def test_what_it_leaves_lies_beside_its_run_the_bundle_whole(finished: Outcome) -> None:
    client, parent, children = in_mlflow(finished)
    names = {each.path for each in client.list_artifacts(parent.info.run_id)}
    assert names == {
        *("campaign.yaml", "best.yaml", "description.md", "report.json", "report.html", "environment.txt", "bundle.zip")
    }
    bundle = read_bundle(Path(client.download_artifacts(parent.info.run_id, "bundle.zip")).read_bytes())
    assert sorted(trial.number for trial in bundle.trials) == sorted(children)


def test_the_leaderboard_names_the_best_configuration_and_the_way_into_mlflow(finished: Outcome) -> None:
    for words in (
        "best configuration (arm",
        "lr:",
        "mlflow ui --backend-store-uri sqlite:///",
        "compareRunsMode=CHART",
        "viewStateShareKey=spectune-",
    ):
        assert words in finished.stderr


def test_every_trial_reported_at_every_step_until_it_ended(finished: Outcome) -> None:
    trials, observations = in_ledger(finished)
    assert len(trials) == 32
    for trial in trials:
        steps = [each.step for each in observations if each.trial == trial.number]
        expected = (
            [20, 40, 60] if trial.state == "COMPLETED" else [step for step in (20, 40, 60) if step <= trial.last_step]
        )
        assert trial.state in {"COMPLETED", "STOPPED"}
        assert steps == expected


def test_mlflow_holds_exactly_what_the_ledger_holds(finished: Outcome) -> None:
    assert_mlflow_equals_ledger(finished)


def test_no_run_is_left_running_in_mlflow(finished: Outcome) -> None:
    _, parent, children = in_mlflow(finished)
    assert {run.info.status for run in (parent, *children.values())} == {"FINISHED"}
    assert parent.data.metrics["num_trials/running"] == 0
    assert all(run.info.end_time is not None for run in (parent, *children.values()))


def test_the_same_seeds_give_the_same_bits(finished: Outcome, tmp_path: Path) -> None:
    again = Run(DOCUMENT, tmp_path).finish()
    assert again.document["arms"] == finished.document["arms"]
    (trials, observations), (trials_again, observations_again) = in_ledger(finished), in_ledger(again)
    assert [(each.number, each.config, each.state) for each in trials] == [
        (each.number, each.config, each.state) for each in trials_again
    ]
    assert [_untimed(each) for each in observations] == [_untimed(each) for each in observations_again]


def _untimed(observation: Observation) -> tuple[int, int, dict[str, float]]:
    timed = {"step_time_seconds", "throughput", "optimizer_share"}
    metrics = {name: value for name, value in observation.metrics.items() if name not in timed}
    return observation.trial, observation.step, metrics


NARROW = {  # what caps the libraries of all processes as a processor without AVX-512 does
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4",
}


def numbers_of(outcome: Outcome) -> list[Any]:
    """List every configuration and every reported objective."""
    trials, observations = in_ledger(outcome)
    values = [(each.trial, each.step, each.metrics["validation_loss"]) for each in observations]
    return [[dict(each.config) for each in trials], sorted(values)]


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="a processor with AVX-512 stands for both kinds"
)
def test_a_deterministic_campaign_has_one_result_on_two_kinds_of_processor(finished: Outcome, tmp_path: Path) -> None:
    elsewhere = Run(DOCUMENT, tmp_path, **NARROW).finish()
    assert numbers_of(elsewhere) == numbers_of(finished)
    (trial, *_), _ = in_ledger(finished)
    (execution,) = trial.executions
    assert (execution["instructions"], execution["threads"], execution["alone"]) == ("AVX2", 1, True)


def test_its_bundle_replays_to_the_last_bit(finished: Outcome, tmp_path: Path) -> None:
    campaign = finished.document["campaign_id"]
    file = tmp_path / "bundle.zip"
    where = ["--data-dir", str(finished.data.root)]
    subprocess.run([SPECTUNE, "bundle", campaign, str(file), *where], check=True, capture_output=True)
    told = subprocess.run([SPECTUNE, "replay", str(file), "--json"], check=True, capture_output=True, text=True).stdout
    document = json.loads(told.splitlines()[-1])
    assert document["num_trials"] == document["num_identical"] > 0
