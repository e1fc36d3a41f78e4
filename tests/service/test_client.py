"""The client says what the API has: every verb of a campaign's life, over the application itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from service.api.application import ROUTES
from service.campaign.lifecycle import CampaignEvent
from service.client import Client
from service.errors import RequestError
from service.settings import Settings
from tests.service.api.conftest import Bench, document, make_bench

# What people ask with a browser or a monitoring system, and what `events` and `tracking` of other tests cover.
ELSEWHERE = {"/healthz", "/readyz", "/metrics", "events", "tracking", "leaderboard", "report"}


@pytest.fixture
def asked() -> set[tuple[str, str]]:
    return set()


def client_of(bench: Bench, asked: set[tuple[str, str]]) -> Client:
    """Make a client whose requests end in the application, and note what it asks for."""
    client = Client("http://testserver")

    def request(method: str, path: str, **options: Any) -> Any:
        asked.add((method, re.sub(r"/trials/\d+", "/trials/N", path.replace(bench.submitted, "ID"))))
        return bench.client.request(method, path, **options)

    client._http.request = request  # type: ignore[method-assign, assignment]
    return client


def test_every_verb_of_the_api_is_a_method(tmp_path: Path, asked: set[tuple[str, str]]) -> None:
    with make_bench(tmp_path, Settings()) as bench, client_of(bench, asked) as client:
        bench.submitted = client.submit(document(), priority=2, key="k")["id"]
        name = bench.submitted
        assert client.submit(document(), priority=2, key="k")["id"] == name
        bench.add_trials(name, [None, 0.5, *[None] * 149])
        assert client.preview(document())["num_points"] == 16
        assert [each["id"] for each in client.campaigns(state="QUEUED")] == [name]
        assert client.change(name, priority=7, budget={"device_seconds": 60})["priority"] == 7
        assert client.campaign(name)["specification"]["budget"]["device_seconds"] == 60
        assert len(list(client.trials(name, limit=100))) == 151
        assert client.trial(name, 1)["state"] == "COMPLETED"
        assert client.curves(name, 1, names="validation_loss")["observations"][0]["step"] == 60
        assert client.stop_trial(name, 0)["state"] == "PENDING"
        assert [each["number"] for each in client.attempts(name)] == [1]
        assert client.logs(name) == ""
        assert client.bundle(name)[:2] == b"PK"
        assert client.best(name)["best"]["value"] == 0.5
        assert all("muon" in client.catalogue(of) for of in ("optimizers", "search-spaces"))
        assert "language_model" in client.catalogue("tasks")
        assert client.act(name, "pause")["state"] == "PAUSED"
        assert client.act(name, "resume")["state"] == "QUEUED"
        bench.ledger.move_campaign(name, CampaignEvent.FAIL, reason="x")
        assert client.act(name, "retry-failed")["state"] == "QUEUED"
        bench.ledger.move_campaign(name, CampaignEvent.FAIL, reason="x")
        assert client.extend(name, points=20)["specification"]["search"]["points"] == 20
        assert client.act(name, "cancel")["state"] == "CANCELLING"
        bench.ledger.move_campaign(name, CampaignEvent.VANISH, reason="x")
        client.delete(name)
        with pytest.raises(RequestError, match="404"):
            client.campaign(name)
    offered = {(route.method, generic(route.path)) for route in ROUTES}
    missing = {path for _, path in offered - asked}
    assert {path for path in missing if path not in ELSEWHERE and path.rpartition("/")[2] not in ELSEWHERE} == set()


def generic(path: str) -> str:
    """Write a route's path as the requests are noted."""
    return re.sub(r"\{campaign_id:\w+\}", "ID", path).replace("{number:int}", "N")
