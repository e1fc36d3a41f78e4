"""What the pages show, and to whom; what comes from users stands in them as text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from spectune.service.api.access import KEY_COOKIE, TOKEN_HEADER
from spectune.service.campaign.model.lifecycle import CampaignEvent
from spectune.service.ledger.access import Role
from spectune.service.settings import Settings
from spectune.service.web import add_pages
from spectune.service.web.routes import ASSETS, ROUTES
from tests.service.api.conftest import Bench, make_bench
from tests.service.api.test_tracking import FakePages

MARKUP = "<script>alert(1)</script>"


def address(path: str, campaign_id: str) -> str:
    return re.sub(r"\{campaign_id:\w+\}", campaign_id, path).replace("{number:int}", "0")


def figures_in(text: str) -> list[dict[str, Any]]:
    return [json.loads(each) for each in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)]


def test_each_page_asks_for_its_role_and_hides_what_is_anothers(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [1.0, 2.0])
    paths = {(route.method, address(route.path, campaign_id)): route for route in ROUTES if route.role is not None}
    for method, path in paths:
        assert bench.client.request(method, path).status_code == 200, path  # nobody has a key: all are the owner
    keys = {role: bench.ledger.create_key(owner="local", role=role) for role in (Role.VIEWER, Role.SUBMITTER)}
    other = bench.ledger.create_key(owner="other", role=Role.SUBMITTER)
    for (method, path), route in paths.items():

        def call(key: str, method: str = method, path: str = path) -> Any:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return bench.client.request(method, path, headers=headers, follow_redirects=False)

        assert (call("").status_code, call("").headers["location"]) == (303, f"/login?then={path}")
        assert call(keys[Role.VIEWER] + "0").status_code == 303, path
        assert call(keys[Role.VIEWER]).status_code == (403 if route.role is Role.SUBMITTER else 200), path
        assert call(keys[Role.SUBMITTER]).status_code == 200, path
        if "{campaign_id" in route.path:
            assert call(other).status_code == 404, path


def test_a_running_campaign_is_shown_with_its_arms_figures_and_what_may_be_done(bench: Bench) -> None:
    campaign_id = bench.submit(name="first")
    bench.add_trials(campaign_id, [3.0, 2.0, 1.0, None])
    base = f"/campaigns/{campaign_id}"
    assert f'href="{base}"' in bench.client.get("/").text
    assert f'data-events="/v1{base}/events?after=' in bench.client.get(base).text
    standing = bench.client.get(base + "/standing").text
    assert re.findall(r'hx-post="/v1/campaigns/[^:]+:(\w+)"', standing) == ["pause", "cancel"]
    assert "1 pending, 3 completed of 16" in standing
    titles = [each["layout"]["title"]["text"] for each in figures_in(bench.client.get(base + "/figures").text)]
    assert titles[:3] == [
        "Objective over time, and the best so far",
        "Curves of the best trials of each arm",
        "Sensitivity to the learning rate",
    ]
    progress, curves, _ = figures_in(bench.client.get(base + "/figures").text)[:3]
    assert [trace["y"] for trace in progress["data"] if trace["mode"] == "lines"] == [[3.0, 1.0], [2.0]]
    assert sorted(trace["y"] for trace in curves["data"]) == [[1.0], [2.0], [3.0]]
    assert "no verdicts" in bench.client.get(base + "/findings").text
    assert "MLflow: this service keeps no tracker" in bench.client.get(base + "/tracking").text


def test_pages_lead_into_mlflow_and_say_why_where_they_cannot(tmp_path: Path) -> None:
    pages = FakePages()
    with make_bench(tmp_path, Settings(), pages=pages) as tracked:
        add_pages(tracked.application)
        campaign_id = tracked.submit()
        tracked.add_trials(campaign_id, [1.0])
        parts = [f"/campaigns/{campaign_id}/tracking", f"/campaigns/{campaign_id}/trials/0/tracking"]
        links = [re.findall(r'href="([^"]+)"', tracked.client.get(part).text) for part in parts]
        home = f"http://mlflow/#/{campaign_id}"
        assert links == [[home, "http://mlflow/#/trials"], [f"{home}/0"]]
        pages.is_away = True
        assert all("MLflow: MLflow does not answer" in tracked.client.get(part).text for part in parts)


def test_trials_are_filtered_ordered_and_paged(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [float(number) for number in range(120)])
    base = f"/campaigns/{campaign_id}/trials"

    def numbers(query: str) -> tuple[list[int], str]:
        text = bench.client.get(f"{base}?{query}").text
        return [int(each) for each in re.findall(rf'href="{base}/(\d+)"', text)], text

    first, text = numbers("order_by=-objective&arm=muon&state=")
    assert first == list(range(118, 18, -2))
    more = json.loads(re.search(r"hx-vals='(.*?)'", text)[1].replace("&#34;", '"'))  # type: ignore[index]
    second, text = numbers("&".join(f"{name}={value}" for name, value in more.items()))
    assert second == list(range(18, -2, -2))
    assert "Next" not in text
    assert numbers("state=FAILED")[0] == []


def test_a_trial_is_shown_with_every_metric_by_step(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [0.25, None])
    shown = bench.client.get(f"/campaigns/{campaign_id}/trials/0").text
    (figure,) = figures_in(shown)
    assert [(trace["name"], trace["x"], trace["y"]) for trace in figure["data"]] == [("validation_loss", [60], [0.25])]
    assert ":stop" not in shown
    waiting = bench.client.get(f"/campaigns/{campaign_id}/trials/1").text
    assert f'hx-post="/v1/campaigns/{campaign_id}/trials/1:stop"' in waiting
    assert bench.client.get(f"/campaigns/{campaign_id}/trials/77").status_code == 404


def test_what_users_write_stands_in_pages_as_text(bench: Bench) -> None:
    campaign_id = bench.submit(name=MARKUP, tags={"why": MARKUP})
    bench.add_trials(campaign_id, [1.0, 2.0])
    bench.ledger.move_campaign(campaign_id, CampaignEvent.FAIL, reason="x", message=MARKUP)
    paths = [address(route.path, campaign_id) for route in ROUTES if route.method == "GET"]
    texts = {path: bench.client.get(path).text for path in paths}
    assert sum("&lt;script&gt;" in text for text in texts.values()) >= 3
    assert not [path for path, text in texts.items() if MARKUP in text]
    assert not [path for path, text in texts.items() if "</script>" in "".join(map(str, figures_in(text)))]


def test_a_file_is_previewed_submitted_once_and_refused_with_its_problems(bench: Bench) -> None:
    page = bench.client.get("/submit").text
    file = re.search(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)[1]  # type: ignore[index]
    key = re.search(r'name="idempotency_key" value="(\w+)"', page)[1]  # type: ignore[index]
    form = {"campaign": file, "idempotency_key": key}
    preview = bench.client.post("/submit/preview", data=form).text
    assert "32 (32 points)" in preview
    first, again = (bench.client.post("/submit", data=form) for _ in range(2))
    assert first.status_code == 204
    assert first.headers["hx-redirect"] == again.headers["hx-redirect"]
    assert len(bench.client.get("/v1/campaigns").json()["campaigns"]) == 1
    for text, problem in (
        ("a: [", "is not YAML"),
        ("a: 1\na: 2", "stands twice"),
        ("name: x", "/task"),
        ("x", "mapping"),
    ):
        for path in ("/submit", "/submit/preview"):
            refused = bench.client.post(path, data={"campaign": text})
            assert (refused.status_code, problem in refused.text) == (200, True), refused.text
    assert bench.client.post("/submit", data={"campaign": "x" * 2**21}).status_code == 413


def test_a_key_is_given_once_and_changes_nothing_without_the_pages_token(bench: Bench) -> None:
    campaign_id = bench.submit()
    key = bench.ledger.create_key(owner="local", role=Role.SUBMITTER)
    assert bench.client.post("/login", data={"key": key + "0"}).status_code == 401
    entered = bench.client.post("/login", data={"key": key, "then": "/submit"}, follow_redirects=False)
    assert (entered.status_code, entered.headers["location"]) == (303, "/submit")
    cookie = entered.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/", f"{KEY_COOKIE}={key}"))
    page = bench.client.get("/")
    assert campaign_id in page.text
    token = re.search(r'"X-CSRF-Token": "(\w+)"', page.text)[1]  # type: ignore[index]
    verb = f"/v1/campaigns/{campaign_id}:pause"
    assert key not in page.text
    assert bench.client.post(verb).status_code == 403
    assert bench.client.post(verb, headers={TOKEN_HEADER: token[:-1] + "x"}).status_code == 403
    assert bench.client.get(f"/v1/campaigns/{campaign_id}").status_code == 200  # and so does EventSource
    assert bench.client.post(verb, headers={TOKEN_HEADER: token}).status_code == 202
    bench.client.post("/logout")
    assert KEY_COOKIE not in bench.client.cookies


@pytest.mark.parametrize("elsewhere", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nb"])
def test_nobody_is_led_elsewhere_by_logging_in(bench: Bench, elsewhere: str) -> None:
    key = bench.ledger.create_key(owner="local", role=Role.VIEWER)
    entered = bench.client.post("/login", data={"key": key, "then": elsewhere}, follow_redirects=False)
    assert entered.headers["location"] == "/"


def test_what_pages_load_is_there_and_comes_from_here_alone(bench: Bench) -> None:
    for name in ASSETS:
        assert bench.client.get(f"/static/{name}").status_code == 200, name
    page = bench.client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)
