"""Whatever becomes of a real MLflow server, in the end its runs, parameters and points are the ledger's, each once."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from spectune.service.ledger import Ledger
from spectune.service.tracking.follower import Follower
from spectune.service.tracking.mlflow_tracker import EXPERIMENT, MlflowTracker
from spectune.service.tracking.projector import Projector
from tests.fakes.campaigns import enter_campaign
from tests.fakes.faulty_proxy import Fault, FaultyProxy
from tests.fakes.mlflow_content import assert_equals_ledger, runs_of
from tests.fakes.mlflow_server import PrivateMlflow

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

NUM_TRIALS = 12
IS_THOROUGH = os.environ.get("SPECTUNE_FAULTS") == "1"
DELAY_SECONDS = 10.0 if IS_THOROUGH else 0.3
AWAY_SECONDS = (0.0, 60.0) if IS_THOROUGH else (0.0,)
PATIENCE_SECONDS = 280.0 if IS_THOROUGH else 120.0


@pytest.fixture
def server(mlflow_server: PrivateMlflow) -> PrivateMlflow:
    """A server that all tests share; each has a campaign of its own in it."""
    return mlflow_server


@pytest.fixture
def campaign_id(request: pytest.FixtureRequest) -> str:
    return f"{re.sub(r'[^a-z0-9]+', '-', request.node.name)[:80]}-1"


@pytest.fixture
def ledger(tmp_path: Path, campaign_id: str) -> Iterator[Ledger]:
    with Ledger.at(tmp_path / "ledger.sqlite") as ledger:
        enter_campaign(ledger, campaign_id, num_trials=NUM_TRIALS)
        yield ledger


@pytest.fixture
def way(server: PrivateMlflow) -> Iterator[Callable[..., FaultyProxy]]:
    """Make the way to the server on which requests go wrong."""
    made: list[FaultyProxy] = []

    def make(*arguments: object, **options: object) -> FaultyProxy:
        made.append(FaultyProxy(server.port, *arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


def follower(ledger: Ledger, address: str) -> Follower:
    tracker = MlflowTracker.connect(address, address=address)
    return Follower(ledger, lambda campaign_ids: [Projector(ledger, tracker, each) for each in campaign_ids])


def is_told(ledger: Ledger, campaign_id: str) -> bool:
    return ledger.cursor("mlflow", campaign_id) >= ledger.campaign(campaign_id).sequence


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def follow(ledger: Ledger, campaign_id: str, address: str) -> None:
    following = follower(ledger, address)
    following.start()
    try:
        wait_until(lambda: is_told(ledger, campaign_id))
    finally:
        following.end(timeout_seconds=60.0)


def assert_whole(server: PrivateMlflow, ledger: Ledger, campaign_id: str) -> None:
    assert_equals_ledger(MlflowClient(server.address), EXPERIMENT, ledger, campaign_id)


def test_the_check_of_these_tests_rejects_a_run_that_is_there_twice_and_one_that_runs(
    server: PrivateMlflow, ledger: Ledger, campaign_id: str
) -> None:
    client = MlflowClient(server.address)
    follow(ledger, campaign_id, server.address)
    assert_whole(server, ledger, campaign_id)
    run = next(each for each in runs_of(client, EXPERIMENT, campaign_id) if each.data.tags.get("trial") == "3")
    twin = client.create_run(run.info.experiment_id, tags=run.data.tags)
    with pytest.raises(AssertionError, match="twice"):
        assert_whole(server, ledger, campaign_id)
    client.delete_run(twin.info.run_id)
    client.update_run(run.info.run_id, status="RUNNING")
    with pytest.raises(AssertionError):
        assert_whole(server, ledger, campaign_id)


def test_a_server_that_is_down_from_the_start(server: PrivateMlflow, ledger: Ledger, campaign_id: str) -> None:
    server.kill()
    following = follower(ledger, server.address)
    following.start()
    try:
        wait_until(lambda: following.problem() is not None)
        server.start()
        wait_until(lambda: is_told(ledger, campaign_id))
    finally:
        following.end(timeout_seconds=60.0)
    assert_whole(server, ledger, campaign_id)


@pytest.mark.parametrize("away_seconds", AWAY_SECONDS)
def test_a_server_that_is_killed_while_it_writes_a_batch_and_comes_back(
    server: PrivateMlflow, ledger: Ledger, campaign_id: str, way: Callable[..., FaultyProxy], away_seconds: float
) -> None:
    batches: list[int] = []

    def cut_a_batch(number: int, path: str) -> Fault:
        if path.endswith("/log-batch"):
            batches.append(number)
            return Fault.CUT if len(batches) == 6 else Fault.NONE
        return Fault.NONE

    killed: list[float] = []

    def kill() -> None:
        time.sleep(0.005)  # it has begun
        server.kill()
        killed.append(time.monotonic())
        threading.Timer(away_seconds, server.start, kwargs={"wait": False}).start()

    follow(ledger, campaign_id, way(cut_a_batch, before_cut=kill).address)
    assert len(killed) == 1
    assert_whole(server, ledger, campaign_id)


def test_a_server_that_answers_every_third_request_with_500(
    server: PrivateMlflow, ledger: Ledger, campaign_id: str, way: Callable[..., FaultyProxy]
) -> None:
    proxy = way(lambda number, path: Fault.NONE if number % 3 else Fault.REFUSED)
    follow(ledger, campaign_id, proxy.address)
    assert proxy.faults.count(Fault.REFUSED) >= NUM_TRIALS
    assert_whole(server, ledger, campaign_id)


def test_requests_that_take_effect_but_whose_answers_are_lost(
    server: PrivateMlflow, ledger: Ledger, campaign_id: str, way: Callable[..., FaultyProxy]
) -> None:
    """A library that asks again made a second run, and nobody knew of the first."""
    lost = {5, *random.Random(7).sample(range(6, 60), 6)}
    proxy = way(lambda number, path: Fault.LOST if number in lost else Fault.NONE)
    follow(ledger, campaign_id, proxy.address)
    paths = [path for path, fault in zip(proxy.paths, proxy.faults, strict=True) if fault is Fault.LOST]
    assert any(path.endswith("/runs/create") for path in paths), f"a run's creation must be lost: got {paths}"
    assert_whole(server, ledger, campaign_id)


def test_a_server_that_answers_slowly(
    server: PrivateMlflow, ledger: Ledger, campaign_id: str, way: Callable[..., FaultyProxy]
) -> None:
    follow(ledger, campaign_id, way(delay_seconds=DELAY_SECONDS).address)
    assert_whole(server, ledger, campaign_id)


def test_a_server_whose_file_is_written_beside_it_while_others_write_through_it(
    server: PrivateMlflow, ledger: Ledger, campaign_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service writes the file of the server that it starts, where people make runs of their own meanwhile."""
    monkeypatch.setattr("spectune.service.tracking.projector.BATCH", 5)  # a transaction for every five reports
    client, theirs = MlflowClient(server.address), []
    experiment = client.create_experiment(campaign_id)
    following = follower(ledger, server.store)
    following.start()
    while not is_told(ledger, campaign_id) or len(theirs) < 3:
        theirs.append(client.create_run(experiment).info.run_id)
        for step in range(3):
            client.log_metric(theirs[-1], "mine", float(step), step=step)
        if IS_THOROUGH and len(theirs) == 2:
            server.kill()
            server.start()
    following.end(timeout_seconds=60.0)
    assert following.problem() is None
    assert_whole(server, ledger, campaign_id)
    assert [len(client.get_metric_history(run_id, "mine")) for run_id in theirs] == [3] * len(theirs)
