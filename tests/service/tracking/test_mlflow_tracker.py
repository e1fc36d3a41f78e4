"""MLflow holds every run once, with its parameters, however often the connection fails."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.tracking._tracking_service.utils import _get_store

from spectune.service.campaign.model.lifecycle import CampaignEvent, TrialState
from spectune.service.ledger import Ledger, entries
from spectune.service.tracking.mlflow_tracker import EXPERIMENT, MlflowTracker
from spectune.service.tracking.projector import Projector
from spectune.service.tracking.run_updates import MetricPoint, RunUpdate
from spectune.service.tracking.served_runs import KnownRun, ServedRuns
from spectune.service.tracking.stored_runs import StoredRuns
from spectune.service.tracking.views import VIEW_TAG
from tests.fakes.mlflow_server import place_empty_store

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

SPECIFICATION: dict[str, Any] = {
    "objective": {"metric": "validation_loss", "mode": "minimize"},
    "task": {"name": "matrix_completion", "steps": 2},
    "arms": [{"name": "muon", "optimizer": "muon", "space": {"lr": {"log_uniform": [0.01, 1.0]}}}],
    "search": {"sampler": "random", "points": 2},
    "tags": {"owner": "me"},
}

NUM_CALLS = 16  # of one undisturbed projection


class LostConnectionError(Exception):
    """The request failed, before or after MLflow carried it out."""


class FlakyStore:
    """A store of MLflow's of which one call fails, before or after it took effect."""

    def __init__(self, store: Any, *, fail_at: int, after_effect: bool) -> None:
        self._store = store
        self._fail_at = fail_at
        self._after_effect = after_effect
        self.num_calls = 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.num_calls += 1
            fails = self.num_calls == self._fail_at
            if fails and not self._after_effect:
                raise LostConnectionError(name)
            answer = getattr(self._store, name)(*arguments, **options)
            if fails:
                raise LostConnectionError(name)
            return answer

        return call


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{place_empty_store(tmp_path / 'mlflow.sqlite')}"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.at(tmp_path / "ledger.sqlite") as ledger:
        ledger.create_campaign("c", name="test", specification=SPECIFICATION)
        attempt = ledger.begin_attempt("c")
        ledger.move_campaign("c", CampaignEvent.LAUNCH, reason="launching")
        ledger.move_campaign("c", CampaignEvent.CLAIM, reason="driver_started")
        records = []
        for trial in range(2):
            place: dict[str, Any] = {"arm": 0, "point": trial, "seed_index": 0, "ask": {}}
            config = {"lr": 0.1, "betas": [0.9, 0.95]}
            records.append(entries.trial_created(trial=trial, config=config, at=1, **place))
            for step in (1, 2):
                value = float("nan") if trial else float(step)
                told: dict[str, Any] = {"metrics": {"validation_loss": value}, "objective": value}
                records.append(
                    entries.observation(trial=trial, step=step, device_seconds=1.0, produced_at=step, **told)
                )
            records.append(entries.trial_moved(trial=trial, state=TrialState.COMPLETED, reason="end", at=9))
        ledger.append("c", attempt, list(enumerate(records, start=1)))
        ledger.move_campaign("c", CampaignEvent.SUCCEED, reason="all_trials_ended")
        yield ledger


def connected(store: str, kind: str) -> MlflowTracker:
    runs = StoredRuns.connect(store) if kind == "stored" else ServedRuns.connect(store)
    return MlflowTracker(runs, address="http://127.0.0.1:5000")


def content(client: MlflowClient) -> list[Any]:
    """Return all that MLflow shows of the runs, but for their random ids."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs: list[Run] = list(client.search_runs([experiment.experiment_id], order_by=["attributes.run_name"]))
    ids = {run.info.run_id: run.info.run_name for run in runs}
    found = []
    for run in runs:
        info = {name: value for name, value in dict(run.info).items() if name not in ("run_id", "run_uuid")}
        info["artifact_uri"] = info["artifact_uri"].replace(run.info.run_id, "ID")
        tags = {name: ids.get(value, value) for name, value in run.data.tags.items()}
        histories = {
            name: [
                (each.step, each.timestamp, repr(each.value))
                for each in client.get_metric_history(run.info.run_id, name)
            ]
            for name in run.data.metrics
        }
        latest = {name: repr(value) for name, value in run.data.metrics.items()}
        found.append((info, tags, run.data.params, latest, histories))
    return found


def assert_whole(client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs: list[Run] = list(client.search_runs([experiment.experiment_id]))
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if run.data.tags["kind"] == "campaign"]
    assert parent.data.params["task"] == "matrix_completion"
    assert parent.data.tags["owner"] == "me"
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.data.tags["trial"] for run in children) == ["0", "1"]
    assert len(runs) == 3
    for child in children:
        assert child.data.params["betas"] == "[0.9, 0.95]"
        assert child.data.tags["phase"] == "search"
        assert [point.step for point in client.get_metric_history(child.info.run_id, "loss/validation")] == [1, 2]
        assert (child.data.metrics["steps"], child.data.metrics["device_seconds"]) == (2.0, 2.0)
        assert child.data.metrics["log10_lr"] == -1.0
        assert child.data.tags["state"] == "COMPLETED"
        assert child.data.tags["mlflow.runColor"].startswith("#")
    metrics = {child.data.tags["trial"]: child.data.metrics for child in children}
    assert (metrics["0"]["best"], metrics["0"]["final"]) == (1.0, 2.0)
    assert "best" not in metrics["1"]  # NaN is none
    assert math.isnan(metrics["1"]["final"])
    (view,) = [tag for tag in experiment.tags if tag.startswith(VIEW_TAG)]
    assert view.endswith("-c")


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize("fail_at", range(1, NUM_CALLS + 1))
def test_a_call_that_fails_anywhere_leaves_no_stray_run_and_no_run_without_parameters(
    fail_at: int, after_effect: bool, ledger: Ledger, store: str
) -> None:
    """A run whose first write failed was created again, and the first one stayed RUNNING for ever."""
    flaky = FlakyStore(_get_store(store), fail_at=fail_at, after_effect=after_effect)
    tracker = MlflowTracker(ServedRuns(flaky, num_connections=1), address="http://127.0.0.1:5000")
    projector = Projector(ledger, tracker, "c")
    with pytest.raises(LostConnectionError):
        projector.catch_up()
    projector.catch_up()
    assert_whole(MlflowClient(tracking_uri=store))


def test_the_test_above_reaches_every_call(ledger: Ledger, store: str) -> None:
    flaky = FlakyStore(_get_store(store), fail_at=0, after_effect=False)
    tracker = MlflowTracker(ServedRuns(flaky, num_connections=1), address="http://127.0.0.1:5000")
    Projector(ledger, tracker, "c").catch_up()
    assert flaky.num_calls == NUM_CALLS


@pytest.mark.parametrize("kind", ["served", "stored"])
def test_a_new_process_finds_the_runs_of_the_one_before(kind: str, ledger: Ledger, store: str) -> None:
    shown = []
    for _ in range(2):
        ledger.set_cursor("mlflow", "c", 0)
        projector = Projector(ledger, connected(store, kind), "c")
        projector.catch_up()
        assert_whole(MlflowClient(tracking_uri=store))
        shown.append(content(MlflowClient(tracking_uri=store)))
    assert shown[0] == shown[1]
    assert "orderByKey=metrics.%60loss%2Fvalidation%60" in projector.page()


def test_writing_the_store_at_once_gives_what_mlflows_own_calls_give(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectune.service.tracking.projector.BATCH", 3)  # so that latest values are overwritten, too
    shown = []
    for kind in ("served", "stored"):
        path = place_empty_store(tmp_path / f"{kind}.sqlite")
        ledger.set_cursor("mlflow", "c", 0)
        Projector(ledger, connected(f"sqlite:///{path}", kind), "c").catch_up()
        shown.append(content(MlflowClient(tracking_uri=f"sqlite:///{path}")))
    assert shown[0] == shown[1]


def test_a_page_that_is_being_read_does_not_hold_up_what_is_written(ledger: Ledger, store: str) -> None:
    """A list of ten thousand runs takes a server seconds; the file was locked for writing meanwhile."""
    tracker = connected(store, "stored")
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"), isolation_level=None)) as page:
        page.execute("BEGIN")
        count = "SELECT count(*) FROM runs"
        assert page.execute(count).fetchone() == (0,)
        Projector(ledger, tracker, "c").catch_up()
        assert page.execute(count).fetchone() == (0,)  # it is still being read
    assert_whole(MlflowClient(tracking_uri=store))


def test_an_earlier_value_does_not_overwrite_the_latest_of_a_metric(store: str) -> None:
    news = {"trial": 0, "name": "a", "created_at": 1, "identity": {"campaign": "c"}, "params": {}}
    shown = []
    for kind in (ServedRuns, StoredRuns):
        runs, known = kind.connect(store), dict[int | None, KnownRun]()
        experiment = runs.experiment(kind.__name__, None)
        for step, value in ((5, 1.0), (3, 9.0), (5, math.inf), (4, -math.inf), (5, math.nan)):
            runs.write(experiment, [RunUpdate(**news, points=[MetricPoint("loss", value, 7, step)])], known)  # type: ignore[arg-type]
        run = MlflowClient(tracking_uri=store).get_run(known[0].run_id)
        history = MlflowClient(tracking_uri=store).get_metric_history(known[0].run_id, "loss")
        shown.append((repr(run.data.metrics["loss"]), sorted((each.step, repr(each.value)) for each in history)))
    assert shown[0] == shown[1]
    assert len(shown[0][1]) == 5


def test_the_store_knows_how_large_its_tables_are_when_a_campaign_has_ended(
    ledger: Ledger, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow sorted ten thousand runs by a metric in 10 s, where SQLite had never counted them."""
    monkeypatch.setattr("spectune.service.tracking.stored_runs._ANALYSED_AFTER", 1)
    for batch in (7, 20_000):  # in several windows, and again, when the statistics are there already
        monkeypatch.setattr("spectune.service.tracking.projector.BATCH", batch)
        ledger.set_cursor("mlflow", "c", 0)
        Projector(ledger, connected(store, "stored"), "c").catch_up()
        with sqlite3.connect(store.removeprefix("sqlite:///")) as connection:
            found = connection.execute("SELECT stat FROM sqlite_stat1 WHERE tbl = 'runs'").fetchall()
        connection.close()
        assert found
        assert all(stat.startswith("3 ") for (stat,) in found)
    assert_whole(MlflowClient(tracking_uri=store))


def test_views_that_are_too_many_go_and_those_that_people_shared_stay(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectune.service.tracking.views.MOST_VIEWS", 2)
    runs, client = ServedRuns.connect(store), MlflowClient(tracking_uri=store)
    experiment = runs.experiment(EXPERIMENT, None)
    client.set_experiment_tag(experiment, VIEW_TAG + "a1b2", "theirs")
    for name in ("spectune-1", "spectune-2", "spectune-3"):
        runs.show(experiment, name, "{}")
    expected = {VIEW_TAG + name for name in ("a1b2", "spectune-2", "spectune-3")}
    assert set(client.get_experiment(experiment).tags) == expected


def test_a_run_that_was_made_twice_is_there_once_in_the_end(ledger: Ledger, store: str) -> None:
    """A request whose answer was lost can take effect after the search that did not find its run."""
    tracker = connected(store, "served")
    Projector(ledger, tracker, "c").catch_up()
    client = MlflowClient(tracking_uri=store)
    identity = {"campaign": "c", "kind": "trial", "trial": "0", "arm": "muon", "point": "0"}
    client.create_run(tracker.experiment_id(), start_time=1, tags=identity, run_name="muon/00000")
    ledger.set_cursor("mlflow", "c", 0)
    Projector(ledger, connected(store, "served"), "c").catch_up()
    assert_whole(client)


def test_what_mlflow_refuses_is_told_and_everything_else_is_there(store: str) -> None:
    class Refusing:
        def __init__(self) -> None:
            self._store: Any = _get_store(store)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        def log_batch(self, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
            if any(metric.key == "poison" for metric in metrics):
                raise MlflowException("no such metric", INVALID_PARAMETER_VALUE)
            self._store.log_batch(run_id, metrics, params, tags)

    runs, known = ServedRuns(Refusing()), dict[int | None, KnownRun]()
    points = [MetricPoint("loss", 1.0, 1, 1), MetricPoint("poison", 2.0, 1, 1), MetricPoint("lr", 3.0, 1, 1)]
    news = RunUpdate(0, "a", 1, {"campaign": "c"}, {"seed": "1"}, points=points)
    (refusal,) = runs.write(runs.experiment(EXPERIMENT, None), [news], known)
    assert (refusal.trial, refusal.error) == (0, "no such metric")
    assert "poison" in refusal.content
    run = MlflowClient(tracking_uri=store).get_run(known[0].run_id)
    assert run.data.metrics == {"loss": 1.0, "lr": 3.0}
    assert run.data.params == {"seed": "1"}
