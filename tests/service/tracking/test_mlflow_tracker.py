"""MLflow holds every run once, with its parameters, however often the connection fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from service.campaign.lifecycle import CampaignEvent, TrialState
from service.ledger import Ledger, entries
from service.tracking.mlflow_tracker import EXPERIMENT, MlflowTracker
from service.tracking.projector import Projector

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

SPECIFICATION: dict[str, Any] = {
    "objective": {"metric": "validation_loss", "mode": "minimize"},
    "task": {"name": "matrix_completion", "steps": 2},
    "arms": [{"name": "muon", "optimizer": "muon"}],
    "search": {"sampler": "random", "points": 2},
    "tags": {"owner": "me"},
}

NUM_CALLS = 17  # of one undisturbed projection


class LostConnectionError(Exception):
    """The request failed, before or after MLflow carried it out."""


class FlakyClient:
    """A client of which one call fails, before or after it took effect."""

    def __init__(self, client: MlflowClient, *, fail_at: int, after_effect: bool) -> None:
        self._client = client
        self._fail_at = fail_at
        self._after_effect = after_effect
        self.num_calls = 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.num_calls += 1
            fails = self.num_calls == self._fail_at
            if fails and not self._after_effect:
                raise LostConnectionError(name)
            answer = getattr(self._client, name)(*arguments, **options)
            if fails:
                raise LostConnectionError(name)
            return answer

        return call


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose tables exist: making them takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.sqlite"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.sqlite")
    return f"sqlite:///{tmp_path / 'mlflow.sqlite'}"


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
        assert [point.step for point in client.get_metric_history(child.info.run_id, "validation_loss")] == [1, 2]


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize("fail_at", range(1, NUM_CALLS + 1))
def test_a_call_that_fails_anywhere_leaves_no_stray_run_and_no_run_without_parameters(
    fail_at: int, after_effect: bool, ledger: Ledger, store: str
) -> None:
    """A run whose first write failed was created again, and the first one stayed RUNNING for ever."""
    client = MlflowClient(tracking_uri=store)
    flaky: Any = FlakyClient(client, fail_at=fail_at, after_effect=after_effect)
    projector = Projector(ledger, MlflowTracker(flaky, address="http://127.0.0.1:5000"), "c")
    with pytest.raises(LostConnectionError):
        projector.catch_up()
    projector.catch_up()
    assert_whole(client)


def test_the_test_above_reaches_every_call(ledger: Ledger, store: str) -> None:
    flaky: Any = FlakyClient(MlflowClient(tracking_uri=store), fail_at=0, after_effect=False)
    Projector(ledger, MlflowTracker(flaky, address="http://127.0.0.1:5000"), "c").catch_up()
    assert flaky.num_calls == NUM_CALLS


def test_a_new_process_finds_the_runs_of_the_one_before(ledger: Ledger, store: str) -> None:
    for _ in range(2):
        ledger.set_cursor("mlflow", "c", 0)
        projector = Projector(ledger, MlflowTracker.connect(store, address="http://127.0.0.1:5000"), "c")
        projector.catch_up()
    assert_whole(MlflowClient(tracking_uri=store))
    assert "orderByKey=metrics.%60validation_loss%60" in projector.page()
