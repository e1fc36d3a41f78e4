"""The service as a team uses it: from submission to the best point, and killed at seeded points.

`make faults` kills it at eighty points: twenty seeds, each of which strikes once in submission, in launch, while
training runs (and a trial is being stopped) and in mid-cancel, with and without twenty seconds of downtime. Every
test run takes one seed: all four moments, each at an instant that the seed draws, without downtime.
"""

from __future__ import annotations

import copy
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from spectune.service.campaign.model.lifecycle import STOPPED_BY_USER
from spectune.service.client import Client
from spectune.service.errors import RequestError
from tests.integration.conftest import DOCUMENT, SPECTUNE
from tests.integration.serving import DEADLINE_SECONDS, Serving, wait_for

pytestmark = pytest.mark.slow

SEEDS = range(20) if os.environ.get("SPECTUNE_FAULTS") else range(1)
ENDLESS = {**DOCUMENT["task"], "steps": 200_000}
RESOURCES = {"workers": 1, "cpus": 1}


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path, "--no-tracking", "--no-ray")
    yield serving
    serving.remove()


def document(**changes: Any) -> dict[str, Any]:
    made = copy.deepcopy(DOCUMENT) | {"resources": RESOURCES} | changes
    made["search"] |= {"points": 3, "sampler": "random"}
    return made


def test_a_campaign_goes_from_submission_to_its_best_point(
    serving: Serving, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    campaign = tmp_path / "campaign.yaml"
    campaign.write_text(yaml.safe_dump(document()), encoding="utf-8")

    def start(*arguments: str) -> subprocess.Popen[str]:
        command, environment = [SPECTUNE, *arguments], os.environ | {"SPECTUNE_URL": serving.url}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def spectune(*arguments: str) -> tuple[int, str, str]:
        process = start(*arguments)
        stdout, stderr = process.communicate(timeout=DEADLINE_SECONDS)
        return process.returncode, stdout.strip(), stderr

    serving.wait_until_ready()
    status, campaign_id, _ = spectune("submit", str(campaign), "--key", "mine")
    assert status == 0
    watching = start("watch", campaign_id)  # while its driver starts there is time for what changes nothing
    request.addfinalizer(watching.kill)
    assert spectune("submit", str(campaign), "--key", "mine")[1] == campaign_id
    status, _, refusal = spectune("run", str(campaign), "--data-dir", str(serving.data.root))
    assert (status, serving.url in refusal) == (2, True)
    assert campaign_id in spectune("list")[1]
    watched = watching.communicate(timeout=2 * DEADLINE_SECONDS)
    assert watching.returncode == 0, (watched, serving.log.read_text(encoding="utf-8"))
    best = httpx.get(f"{serving.url}/v1/campaigns/{campaign_id}/best").json()["best"]
    with serving.client() as client:
        told = list(client.events(campaign_id))
        assert [event["id"] for event in told] == list(range(1, len(told) + 1))
        progress = client.campaign(campaign_id)["progress"]
        assert sum(progress["num_trials"].values()) == progress["num_trials_planned"] == 6
    assert best["optimizer"] in ("muon", "adamw")
    wait_for(lambda: serving.processes() == [])
    assert serving.terminate() == 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(900)
def test_the_service_is_killed_in_submission_in_launch_while_running_and_in_mid_cancel(
    tmp_path: Path, seed: int
) -> None:
    """Even seeds have drivers in a Ray of the service's own, odd ones drivers that are processes."""
    chance = random.Random(seed)
    downtime = chance.choice([0.0, 20.0]) if os.environ.get("SPECTUNE_FAULTS") else 0.0
    body = document(task=ENDLESS, stopping={"rule": "none"})
    serving = Serving(tmp_path, "--no-tracking", *(["--no-ray"] if seed % 2 else []))
    try:
        serving.wait_until_ready()
        _strike(serving, body, chance, downtime)
    except AssertionError:
        print(serving.story())
        raise
    finally:
        serving.remove()


def _strike(serving: Serving, body: dict[str, Any], chance: random.Random, downtime: float) -> None:
    def submit() -> None:
        with suppress(httpx.TransportError):  # killed while it was being told
            httpx.post(f"{serving.url}/v1/campaigns", json=body, headers={"Idempotency-Key": "once"}, timeout=30)

    def kill_and_restart(after_seconds: float) -> None:
        time.sleep(after_seconds)
        serving.kill()
        time.sleep(downtime)
        serving.start()

    asking = threading.Thread(target=submit)
    asking.start()
    kill_and_restart(chance.uniform(0.0, 0.4))
    asking.join()
    with serving.client() as client:
        campaign_id = client.submit(body, key="once")["id"]
        assert [each["id"] for each in client.campaigns()] == [campaign_id]
        wait_for(lambda: client.campaign(campaign_id)["attempt"] > 0)
        kill_and_restart(chance.uniform(0.0, 0.5))

        wait_for(lambda: client.campaign(campaign_id)["progress"]["num_trials"].get("RUNNING"))
        wait_for(lambda: len(serving.drivers()) == 1, seconds=10.0)
        drivers, attempt = serving.drivers(), client.campaign(campaign_id)["attempt"]
        assert attempt <= 2  # a launch that nobody took is made good by the next attempt
        serving.log.write_text("", encoding="utf-8")
        stopped = next(client.trials(campaign_id, state="RUNNING"))["number"]
        client.stop_trial(campaign_id, stopped)
        kill_and_restart(chance.uniform(0.0, 2.0))
        serving.wait_until_ready()
        wait_for(serving.has_adopted, seconds=10.0)
        assert (serving.drivers(), client.campaign(campaign_id)["attempt"]) == (drivers, attempt)
        assert client.submit(body, key="once")["id"] == campaign_id
        _check_that_one_trial_ends(client, campaign_id, stopped)

        client.act(campaign_id, "cancel")
        kill_and_restart(chance.uniform(0.0, 1.5))
        wait_for(lambda: client.campaign(campaign_id)["state"] == "CANCELLED")
        assert serving.processes() == []
        with pytest.raises(RequestError, match="409"):
            client.act(campaign_id, "pause")


def _check_that_one_trial_ends(client: Client, campaign_id: str, stopped: int) -> None:
    """What a user stops ends with its next report, whoever was killed meanwhile; another one trains on."""
    wait_for(lambda: client.trial(campaign_id, stopped)["state"] == "CANCELLED")
    trial = client.stop_trial(campaign_id, stopped)  # once more is harmless
    assert (trial["state"], trial["reason"]) == ("CANCELLED", STOPPED_BY_USER)
    other = wait_for(lambda: next(client.trials(campaign_id, state="RUNNING"), None))
    assert other["number"] != stopped
    wait_for(lambda: client.trial(campaign_id, other["number"])["last_step"] > other["last_step"])
    assert client.campaign(campaign_id)["state"] == "RUNNING"
