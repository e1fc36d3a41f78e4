"""What a service stands on goes away: its Ray, its database, the replica that leads. Nothing is lost, nothing twice.

Part of `make faults` alone, for each takes a minute: `tests/service` proves the same with simulated time in every run.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from spectune.service.ledger import ServiceLedger
from tests.fakes.postgres import PrivatePostgres, find_binaries
from tests.integration.serving import Serving, wait_for
from tests.integration.test_serve import ENDLESS, document

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not os.environ.get("SPECTUNE_FAULTS"), reason="part of `make faults`"),
]
OUTAGE_SECONDS = 30.0
LEAD_SECONDS = 15.0
ASIDE = ("--no-tracking", "--no-ray")


@pytest.fixture
def postgres() -> Iterator[PrivatePostgres]:
    """Yield a PostgreSQL that this test alone may stop."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL is installed")
    server = PrivatePostgres(binaries)
    yield server
    server.remove()


def endless() -> dict[str, Any]:
    return document(task=ENDLESS, stopping={"rule": "none"}, objective=document()["objective"] | {"every_steps": 100})


def num_running(serving: Serving, campaign_id: str) -> int:
    with serving.client() as client:
        return int(client.campaign(campaign_id)["progress"]["num_trials"].get("RUNNING", 0))


def is_without_gap(ledger: ServiceLedger, campaign_id: str) -> bool:
    """Return whether everything that happened is there, each observation once."""
    changes = ledger.changes(campaign_id, after=0, limit=10**6)
    counts = Counter((each.trial, each.step) for each in ledger.observations(campaign_id))
    return [each.sequence for each in changes] == list(range(1, len(changes) + 1)) and set(counts.values()) <= {1}


def test_a_ray_head_that_is_killed_is_replaced_and_its_campaign_goes_on_from_its_checkpoints(tmp_path: Path) -> None:
    serving = Serving(tmp_path, "--no-tracking")
    try:
        serving.wait_until_ready()
        with serving.client() as client, ServiceLedger.at(serving.data.ledger) as ledger:
            campaign_id = client.submit(endless())["id"]
            wait_for(lambda: len(ledger.observations(campaign_id)) > 5, seconds=120.0)
            checkpoints = serving.data.checkpoints(campaign_id)
            wait_for(lambda: list(checkpoints.rglob("*.ckpt")))
            time.sleep(1.0)
            trial = ledger.observations(campaign_id)[0].trial
            reached = ledger.trial(campaign_id, trial).last_step
            head = serving.head()
            head.kill()
            wait_for(lambda: client.campaign(campaign_id)["attempt"] == 2, seconds=120.0)
            wait_for(lambda: ledger.trial(campaign_id, trial).last_step > reached + 500, seconds=120.0)
            assert len(serving.drivers()) == 1
            assert serving.head().pid != head.pid
            fresh = [each.step for each in ledger.observations(campaign_id) if each.attempt == 2]
            assert min(fresh) > 100, "it did not begin anew"
            assert is_without_gap(ledger, campaign_id)
            client.act(campaign_id, "cancel")
            wait_for(lambda: client.campaign(campaign_id)["state"] == "CANCELLED")
            assert serving.processes() == []
        assert serving.terminate() == 0
        assert not serving.data.ray_head.exists(), "a Ray that runs nothing ends with its service"
    finally:
        serving.remove()


def test_of_two_replicas_on_one_database_the_other_leads_when_the_first_is_killed(
    postgres: PrivatePostgres, tmp_path: Path
) -> None:
    database = postgres.new_database()
    environment = {"SPECTUNE_DATABASE_URL": database, "SPECTUNE_MAX_RUNNING": "1"}
    both = [
        Serving(tmp_path / name, *ASIDE, data=tmp_path / "data", environment=environment) for name in ("one", "two")
    ]
    try:
        for each in both:
            each.wait_until_ready()
        with both[0].client() as client, ServiceLedger(database) as ledger:
            ids = [client.submit(endless(), key=str(number))["id"] for number in range(2)]
            wait_for(lambda: num_running(both[1], ids[0]))
            drivers = both[0].drivers()
            launches = ["was launched" in each.log.read_text(encoding="utf-8") for each in both]
            assert sorted(launches) == [False, True], "one of them leads"
            leader, other = both if launches[0] else both[::-1]
            leader.kill()
            killed_at = time.monotonic()
            wait_for(lambda: "was adopted" in other.log.read_text(encoding="utf-8"), seconds=LEAD_SECONDS)
            print(f"the other led {time.monotonic() - killed_at:.1f} s later")
            with other.client() as second:
                assert second.submit(endless(), key="0")["id"] == ids[0]
                second.act(ids[1], "cancel")
                wait_for(lambda: second.campaign(ids[1])["state"] == "CANCELLED")
                assert (other.drivers(), second.campaign(ids[0])["attempt"]) == (drivers, 1)
                second.act(ids[0], "cancel")
                wait_for(lambda: second.campaign(ids[0])["state"] == "CANCELLED")
            assert other.processes() == []
            assert is_without_gap(ledger, ids[0])
    finally:
        for each in both:
            each.remove()


def test_while_the_database_is_stopped_training_goes_on_and_requests_are_told_when_to_come_back(
    postgres: PrivatePostgres, tmp_path: Path
) -> None:
    database = postgres.new_database()
    serving = Serving(tmp_path, *ASIDE, environment={"SPECTUNE_DATABASE_URL": database})
    answers: Counter[int] = Counter()
    ending = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=serving.url, timeout=60.0) as http:
            while not ending.is_set():
                answer = http.get("/v1/campaigns")
                answers[answer.status_code] += 1
                assert answer.status_code == 200 or answer.headers["retry-after"]

    try:
        serving.wait_until_ready()
        with serving.client() as client:
            campaign_id = client.submit(endless())["id"]
            wait_for(lambda: num_running(serving, campaign_id))
            askers = [threading.Thread(target=ask) for _ in range(8)]
            for asker in askers:
                asker.start()
            time.sleep(2.0)
            drivers, spool = serving.drivers(), serving.data.spool(campaign_id, 1)
            postgres.stop()
            size = spool.stat().st_size
            time.sleep(OUTAGE_SECONDS)
            told = httpx.get(f"{serving.url}/readyz", timeout=30.0)
            assert (told.status_code, "ledger" in told.json()["detail"]) == (503, True)
            assert httpx.get(f"{serving.url}/healthz").status_code == 200
            assert spool.stat().st_size > size, "training waits for the database"
            postgres.start()
            wait_for(serving.is_ready, seconds=15.0)
            ending.set()
            for asker in askers:
                asker.join()
            assert (serving.drivers(), client.campaign(campaign_id)["attempt"]) == (drivers, 1)
            assert set(answers) == {200, 503}
            client.act(campaign_id, "pause")
            wait_for(lambda: client.campaign(campaign_id)["state"] == "PAUSED")
        with ServiceLedger(database) as ledger:
            assert is_without_gap(ledger, campaign_id)
            assert ledger.spool_position(campaign_id, 1) == len(spool.read_bytes().splitlines())
    finally:
        ending.set()
        serving.remove()
