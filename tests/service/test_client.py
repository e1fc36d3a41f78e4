"""The client says what the API has: every verb of a campaign's life, over the application itself."""

from __future__ import annotations

import functools
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from spectune.service.api.application import ROUTES
from spectune.service.campaign.model.lifecycle import CampaignEvent
from spectune.service.cli import main, remote, verbs
from spectune.service.client import Client
from spectune.service.errors import RequestError
from spectune.service.settings import Settings
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
        options.pop("timeout", None)  # there is no net between them
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
        assert client.set_aside(name) == []
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


@pytest.fixture
def mute() -> Iterator[str]:
    """Yield the address of a listener that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """Return an address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class Flaky(BaseHTTPRequestHandler):
    """Answers with the statuses that its server holds, the last one for ever."""

    def do_GET(self) -> None:
        statuses: list[int] = self.server.statuses  # type: ignore[attr-defined]
        self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def flaky() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Flaky) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


VERBS = {
    "submit": ["FILE"],
    "preview": ["FILE"],
    "list": [],
    "extend": ["x", "--points", "9"],
    "stop": ["x", "1"],
    **{verb: ["x"] for verb in ("show", "watch", "cancel", "pause", "resume", "retry", "logs")},
}


def test_every_remote_verb_is_among_those_tried() -> None:
    assert VERBS.keys() == {name for name, verb in verbs.VERBS.items() if verb.place.startswith("remote:")}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_without_a_service_names_its_address_and_how_to_start_one(
    verb: str, closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("name: a\n", encoding="utf-8")
    given = [str(tmp_path / "c.yaml") if each == "FILE" else each for each in VERBS[verb]]
    monkeypatch.setattr(remote, "Client", functools.partial(Client, first_patience_seconds=0.05))
    monkeypatch.setattr(sys, "argv", ["spectune", verb, *given, "--url", closed])
    with pytest.raises(SystemExit) as end:
        main()
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert closed in told
    assert "spectune serve" in told
    assert "refused" in told


@pytest.mark.slow
@pytest.mark.parametrize("address", ["closed", "mute"])
def test_the_first_call_waits_for_no_service_longer_than_three_seconds(
    address: str, request: pytest.FixtureRequest
) -> None:
    began = time.monotonic()
    with Client(request.getfixturevalue(address)) as client, pytest.raises(RequestError, match="spectune serve"):
        list(client.campaigns())
    assert time.monotonic() - began < 3.0


def test_following_events_does_not_wait_for_a_service_that_was_never_there(closed: str) -> None:
    with (
        Client(closed, first_patience_seconds=0.05) as client,
        pytest.raises(RequestError, match="no service can be reached"),
    ):
        next(client.events("x"))


def test_a_proxy_without_a_service_behind_it_is_no_service(flaky: HTTPServer) -> None:
    flaky.statuses = [502]  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{flaky.server_port}"
    with Client(url, first_patience_seconds=0.05) as client, pytest.raises(RequestError, match="answered 502"):
        client.campaign("x")


def test_a_service_that_was_reached_is_waited_for_while_it_is_away(flaky: HTTPServer) -> None:
    flaky.statuses = [200, 200, 503, 502, 200]  # type: ignore[attr-defined]
    with Client(f"http://127.0.0.1:{flaky.server_port}", first_patience_seconds=0.05) as client:
        assert client.campaign("x") == {}
        assert client.campaign("x") == {}


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://[::1", "http://exa mple", ""])
def test_what_is_no_address_of_a_service_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(RequestError, match=r"http://127\.0\.0\.1:8000|spectune serve"):
        Client(url, first_patience_seconds=0.05).campaign("x")
