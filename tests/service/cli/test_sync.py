"""`spectune sync` brings MLflow up to the ledger, and makes it again from nothing."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from spectune.service.campaign.model.records import Refusal
from spectune.service.cli.application import application
from spectune.service.data_directory import DataDirectory
from spectune.service.errors import CampaignNotFoundError, DataDirectoryError, TrackingError
from spectune.service.ledger import Ledger, ServiceLedger
from spectune.service.tracking.mlflow_tracker import EXPERIMENT
from tests.fakes.campaigns import enter_campaign
from tests.fakes.mlflow_content import assert_equals_ledger, content

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPECTUNE_MLFLOW_URI", "SPECTUNE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    data = DataDirectory(tmp_path)
    with Ledger.at(data.ledger) as ledger:
        for campaign_id in ("a", "b"):
            enter_campaign(ledger, campaign_id, num_trials=4)
    return data


def sync(data: DataDirectory, *arguments: str) -> Result:
    return CliRunner().invoke(application, ["sync", *arguments, "--data-dir", str(data.root)])


def told(data: DataDirectory) -> list[int]:
    with Ledger.at(data.ledger) as ledger:
        return [ledger.cursor("mlflow", campaign_id) for campaign_id in ("a", "b")]


def documents(client: MlflowClient) -> dict[str, tuple[str, set[str]]]:
    """Return what a person finds at each campaign's run: its description without links, and its files."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'campaign'")
    return {
        run.data.tags["campaign"]: (
            re.sub(r"\]\([^)]*\)", "]", run.data.tags["mlflow.note.content"]),
            {artifact.path for artifact in client.list_artifacts(run.info.run_id)},
        )
        for run in runs
    }


def test_it_brings_up_one_campaign_or_all_and_a_rebuild_doubles_nothing(data: DataDirectory) -> None:
    result = sync(data, "b")
    assert result.exit_code == 0, result.output
    assert told(data)[0] == 0
    assert sync(data).exit_code == 0
    client = MlflowClient(tracking_uri=data.mlflow_uri)
    before = {campaign_id: content(client, EXPERIMENT, campaign_id) for campaign_id in ("a", "b")}
    attached = documents(client)
    assert attached.keys() == {"a", "b"}
    assert all("report.html" in files and text for text, files in attached.values())
    rebuilt = sync(data, "--rebuild")
    assert rebuilt.exit_code == 0, rebuilt.output
    assert {campaign_id: content(client, EXPERIMENT, campaign_id) for campaign_id in ("a", "b")} == before
    assert documents(client) == attached
    with Ledger.at(data.ledger) as ledger:
        assert_equals_ledger(client, EXPERIMENT, ledger, "a")
    other = DataDirectory(data.root / "other")  # the same ledger, and an MLflow that has lost everything
    other.root.mkdir()
    shutil.copy(data.ledger, other.ledger)
    assert sync(other).exit_code == 0
    lost = MlflowClient(tracking_uri=other.mlflow_uri)
    assert {campaign_id: content(lost, EXPERIMENT, campaign_id) for campaign_id in ("a", "b")} == before
    assert sync(other, "--rebuild").exit_code == 0
    client = MlflowClient(tracking_uri=other.mlflow_uri)
    assert {campaign_id: content(client, EXPERIMENT, campaign_id) for campaign_id in ("a", "b")} == before
    assert documents(client) == attached


def test_it_shows_what_mlflow_refuses(data: DataDirectory) -> None:
    with Ledger.at(data.ledger) as ledger:
        ledger.add_dead_letters("mlflow", "a", [Refusal(3, "the metric 'x'", "may only contain letters")])
    result = sync(data, "a")
    assert result.exit_code == 0, result.output
    assert "a: MLflow refuses the metric 'x' of trial 3: may only contain letters" in result.output
    assert "refuses the metric" not in sync(data, "a", "--rebuild").output


def test_it_is_refused_where_a_service_or_another_command_has_the_data_directory(data: DataDirectory) -> None:
    with data.locked(served_at="http://127.0.0.1:9"):
        result = sync(data)
    assert isinstance(result.exception, DataDirectoryError)
    assert "the service at http://127.0.0.1:9 has this data directory" in str(result.exception)
    with ServiceLedger.at(data.ledger) as ledger:
        ledger.take_lease("mlflow", holder="another", seconds=60)
    result = sync(data)
    assert isinstance(result.exception, DataDirectoryError)
    assert "another process keeps MLflow up to date" in str(result.exception)
    assert told(data) == [0, 0]


def test_a_campaign_that_is_not_there_is_named_with_the_nearest(data: DataDirectory) -> None:
    result = sync(data, "aa")
    assert isinstance(result.exception, CampaignNotFoundError)
    assert str(result.exception).endswith("got 'aa'")


def test_nothing_is_made_where_no_campaign_was_run(tmp_path: Path) -> None:
    result = sync(DataDirectory(tmp_path / "none"))
    assert isinstance(result.exception, DataDirectoryError)
    assert not (tmp_path / "none").exists()


def test_an_mlflow_of_ones_own_that_is_away_is_named(data: DataDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTUNE_MLFLOW_URI", "http://127.0.0.1:1")
    result = sync(data)
    assert isinstance(result.exception, TrackingError)
    assert "http://127.0.0.1:1" in str(result.exception)
    assert told(data) == [0, 0]


@pytest.mark.parametrize("what", ["deleted", "garbage", "truncated", "half made", "another's"])
def test_a_store_that_is_lost_or_broken_is_made_again_from_the_ledger(what: str, data: DataDirectory) -> None:
    assert sync(data).exit_code == 0
    before = {each: content(MlflowClient(tracking_uri=data.mlflow_uri), EXPERIMENT, each) for each in ("a", "b")}
    stored = data.mlflow_store.read_bytes()
    for end in ("", "-wal", "-shm"):
        data.mlflow_store.with_name(data.mlflow_store.name + end).unlink(missing_ok=True)
    match what:
        case "garbage":
            data.mlflow_store.write_bytes(b"garbage" * 999)
        case "truncated":
            data.mlflow_store.write_bytes(stored[: len(stored) // 2])
        case "half made":
            data.mlflow_store.write_bytes(stored)
            with closing(sqlite3.connect(data.mlflow_store)) as connection:
                connection.execute("CREATE TABLE _alembic_tmp_experiments (x)")
        case "another's":
            with closing(sqlite3.connect(data.mlflow_store)) as connection:
                connection.execute("CREATE TABLE cats (name)")
    program = (
        "import sys; from spectune.service.cli import main; main()"  # MLflow keeps a store open that it has opened
    )
    command = [sys.executable, "-c", program, "sync", "--data-dir", str(data.root)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    moved = DataDirectory(
        data.root.rename(data.root.with_name(f"moved-{data.root.name}"))
    )  # another address, for the same reason
    client = MlflowClient(tracking_uri=moved.mlflow_uri)
    assert {each: content(client, EXPERIMENT, each) for each in ("a", "b")} == before
    assert len(list(moved.root.glob("mlflow.sqlite.*-2*"))) == (what != "deleted")


def test_a_data_directory_that_was_moved_leaves_nothing_at_its_old_place(data: DataDirectory, tmp_path: Path) -> None:
    old = data.root / "old?#%41"
    old.mkdir()
    first = DataDirectory(old)
    shutil.copy(data.ledger, first.ledger)
    assert sync(first, "a").exit_code == 0
    moved = DataDirectory(old.rename(data.root / "new%20 place"))
    result = sync(moved)
    assert result.exit_code == 0, result.output
    assert not old.exists(), [str(path) for path in old.rglob("*")]
    found = documents(MlflowClient(tracking_uri=moved.mlflow_uri))
    assert found.keys() == {"a", "b"}
    assert all("report.html" in files for _, files in found.values())
    assert len(list(moved.mlflow_artifacts.rglob("bundle.zip"))) == 2
