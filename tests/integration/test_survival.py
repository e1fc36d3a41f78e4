"""Processes die, users press Ctrl-C: nothing is lost, nothing is doubled, nothing is left behind."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from spectune.service.campaign.model.lifecycle import CampaignState
from spectune.service.ledger import Ledger
from spectune.service.tracking.mlflow_tracker import EXPERIMENT
from tests.integration.conftest import DOCUMENT, Run
from tests.integration.test_run import assert_mlflow_equals_ledger, in_ledger

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

LONG: dict[str, Any] = DOCUMENT | {
    "task": {"name": "matrix_completion", "rows": 80, "columns": 60, "rank": 3, "steps": 1500},
    "objective": {"metric": "validation_loss", "mode": "minimize", "every_steps": 100},
    "search": {"sampler": "random", "points": 5, "search_seed": 3},
    "stopping": {"rule": "none"},
}

SHORT: dict[str, Any] = DOCUMENT | {"search": {"sampler": "random", "points": 1}, "stopping": {"rule": "none"}}


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive, f"left behind: {alive}"


def test_ctrl_c_pauses_cleanly_with_the_leaderboard_so_far_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = Run(LONG, tmp_path)
    run.wait_for(lambda run: run.num_observations() > 20)
    family = run.descendants()
    run.process.send_signal(signal.SIGINT)
    asked_at = time.monotonic()
    outcome = run.finish()
    assert outcome.exit_status == 130
    assert outcome.document["state"] == "PAUSED"
    assert "best point of each arm" in outcome.stderr
    campaign_id = outcome.document["campaign_id"]
    told = f"spectune run --resume {campaign_id} --data-dir {run.data.root}"
    first, *_ = outcome.stderr.splitlines()
    assert first == f"campaign {campaign_id}  data {run.data.root}  go on after a stop: {told}"
    assert f"go on with: {told}" in outcome.stderr
    trials, _ = in_ledger(outcome)
    assert {trial.state for trial in trials} <= {"COMPLETED", "PENDING"}
    assert_mlflow_equals_ledger(outcome)
    assert_gone(family)
    assert time.monotonic() - asked_at < 60


def test_a_killed_command_leaves_no_process_and_the_next_one_brings_its_campaign_to_rest(tmp_path: Path) -> None:
    run = Run(LONG, tmp_path)
    run.wait_for(lambda run: run.num_observations() > 20)
    family = run.descendants()
    run.process.kill()
    killed = run.finish()
    psutil.wait_procs(family, timeout=30)
    assert_gone(family)
    with Ledger.at(killed.data.ledger) as ledger:
        (campaign,) = ledger.campaigns()
        trials, observations = ledger.trials(campaign.campaign_id), ledger.observations(campaign.campaign_id)
    assert campaign.state is CampaignState.PAUSED
    assert {trial.state for trial in trials} <= {"COMPLETED", "PENDING"}
    assert len({(each.trial, each.step) for each in observations}) == len(observations)

    assert Run(SHORT, tmp_path).finish().exit_status == 0
    client = MlflowClient(tracking_uri=killed.data.mlflow_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.campaign = '{campaign.campaign_id}'", max_results=1000)
    assert len(runs) == len(trials) + 1
    assert "RUNNING" not in {run.info.status for run in runs}


def test_a_paused_campaign_goes_on_where_its_data_directory_was_moved_to(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    run = Run(LONG, old)
    run.wait_for(lambda run: run.num_observations() > 5)
    run.process.send_signal(signal.SIGINT)
    paused = run.finish()
    assert paused.exit_status == 130
    new.mkdir()
    shutil.move(paused.data.root, new / "data")
    shutil.rmtree(old)
    moved = Run(LONG, new, resume=paused.document["campaign_id"]).finish()
    assert (moved.exit_status, moved.document["state"]) == (0, "SUCCEEDED"), moved.stderr
    assert not old.exists()
    (report,) = moved.data.mlflow_artifacts.rglob("report.html")
    assert report.is_file()
    assert_mlflow_equals_ledger(moved)
    private = {path.stat().st_mode & 0o077 for path in moved.data.root.rglob("*") if path.exists()}
    assert private == {0}, "nobody but its owner reads what a campaign leaves"
