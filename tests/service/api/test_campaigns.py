"""Campaigns over HTTP: submitted once, listed in pages, changed against their version, refused as problems."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spectune.service.campaign.model.lifecycle import CampaignEvent
from spectune.service.settings import Settings
from tests.service.api.conftest import Bench, document


def problem(answer: Any, status: int) -> dict[str, Any]:
    """Check that an answer is a problem, and give it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["type"].startswith("urn:spectune:problem:")
    return found


def pointers(answer: Any) -> list[str]:
    return [each["pointer"] for each in problem(answer, 422)["errors"]]


def test_a_submitted_campaign_is_queued_and_stands_where_location_says(bench: Bench) -> None:
    answer = bench.client.post("/v1/campaigns", json=document(priority=3))
    assert answer.status_code == 201
    campaign = bench.client.get(answer.headers["location"]).json()
    assert (campaign["state"], campaign["owner"], campaign["priority"]) == ("QUEUED", "local", 3)
    nothing = {"num_trials": {}, "num_trials_planned": 16, "until_step": 60, "eta_seconds": None}
    nothing["text"] = "none yet of 16"
    assert (campaign["progress"], campaign["best"]) == (nothing, None)
    assert campaign["specification"]["arms"][0]["name"] == "muon"
    assert bench.wakes == [None]
    for link in campaign["links"].values():
        if not link.endswith("/events"):
            assert bench.client.get(link).status_code == 200, link


def test_the_same_idempotency_key_gives_the_same_campaign(bench: Bench) -> None:
    headers = {"Idempotency-Key": "mine"}
    first, again = (bench.client.post("/v1/campaigns", json=document(), headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    other = bench.client.post("/v1/campaigns", json=document(name="other"), headers=headers)
    assert problem(other, 422)["type"] == "urn:spectune:problem:idempotency-key"
    assert len(bench.client.get("/v1/campaigns").json()["campaigns"]) == 1


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"optimiser": "muon"}, "/optimiser"),
        ({"task": {"name": "matrix_completion", "steps": 0}}, "/task/steps"),
        ({"arms": [{"optimizer": "mun"}]}, "/arms/0/optimizer"),
        ({"name": "a\0b"}, "/name"),
        ({"tags": {"a/b~c": "x\0"}}, "/tags/a~1b~0c"),
        ({"tags": {"~1": {"/": ["\0"]}}}, "/tags/~01/~1/0"),
        ({"name": "lone \ud800"}, "/name"),
        ({"priority": "high"}, "/priority"),
        ({"priority": 10**6}, "/priority"),
        ({"task": {"name": "os:system", "steps": 3}}, "/task/name"),
        ({"task": {"name": "spectune.service.cli:main", "steps": 3}}, "/task/name"),
        ({"task": {"name": "language_model", "steps": 3, "corpus": "/etc"}}, "/task/corpus"),
        ({"task": {"name": "language_model", "steps": 3, "corpus": "../.."}}, "/task/corpus"),
        ({"tags": {"x": 10**30}}, "/tags/x"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_place_and_nothing_is_stored(
    bench: Bench, change: dict[str, Any], pointer: str
) -> None:
    body = json.dumps(document(**change))  # ASCII: a lone surrogate travels as \ud800
    for path in ("/v1/campaigns", "/v1/campaigns:preview"):
        answer = bench.client.post(path, content=body, headers={"content-type": "application/json"})
        assert pointer in pointers(answer)
    assert bench.client.get("/v1/campaigns").json() == {"campaigns": [], "next_cursor": None}


def test_a_refusal_does_not_repeat_what_was_sent(bench: Bench) -> None:
    answer = bench.client.post("/v1/campaigns", json=document(task={"name": "s3cret", "steps": "s3cret"}))
    problem(answer, 422)
    assert "s3cret" not in answer.text


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b'{"name": NaN}', 400, "NaN"),
        (b'{"name": 1, "name": 2}', 400, "twice"),
        (b"{", 400, "no JSON"),
        (b"\xff", 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        (b'"' + b"x" * 1024**2 + b'"', 413, "bytes"),
    ],
)
def test_a_body_that_is_no_json_is_refused(bench: Bench, content: bytes, status: int, words: str) -> None:
    answer = bench.client.post("/v1/campaigns", content=content, headers={"content-type": "application/json"})
    assert words in problem(answer, status)["detail"]


def test_a_body_of_another_kind_is_refused(bench: Bench) -> None:
    answer = bench.client.post("/v1/campaigns", content=b"name: x", headers={"content-type": "application/yaml"})
    problem(answer, 415)
    for body in ([], "x", 3):
        assert pointers(bench.client.post("/v1/campaigns", json=body)) == [""]


def test_names_are_data(bench: Bench) -> None:
    name = "'; DROP TABLE campaigns; -- <script>alert(1)</script>"
    campaign_id = bench.submit(name=name)
    assert bench.client.get(f"/v1/campaigns/{campaign_id}").json()["name"] == name


def test_a_preview_counts_and_warns(bench: Bench) -> None:
    body = document(search={"sampler": "tpe", "points": 4, "seeds": 2})
    preview = bench.client.post("/v1/campaigns:preview", json=body).json()
    assert (preview["num_points"], preview["num_trials"], preview["most_steps"]) == (8, 16, 960)
    assert any(warning.startswith("/search/points") for warning in preview["warnings"])


def test_pages_of_campaigns_hold_all_of_them(bench: Bench) -> None:
    made = [bench.submit(priority=number % 3) for number in range(5)]
    for order in ("created_at", "-created_at", "priority", "-priority"):
        seen, query = [], {"limit": "2", "order_by": order}
        while True:
            page = bench.client.get("/v1/campaigns", params=query).json()
            seen += [each["id"] for each in page["campaigns"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert sorted(seen) == sorted(made)
    assert bench.client.get("/v1/campaigns", params={"state": "RUNNING"}).json()["campaigns"] == []
    assert bench.client.get("/v1/campaigns", params={"owner": "nobody"}).json()["campaigns"] == []


@pytest.mark.parametrize("cursor", ["x", "WyJhIl0", "%00", "W10", "bnVsbA", "WyItY3JlYXRlZF9hdCIsIDFlOTk5LCAieCJd"])
def test_a_cursor_that_is_not_ours_is_refused(bench: Bench, cursor: str) -> None:
    assert pointers(bench.client.get("/v1/campaigns", params={"cursor": cursor})) == ["cursor"]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "order_by=id", "state=ILL", "limit=9999"])
def test_a_parameter_that_cannot_be_used_is_named(bench: Bench, query: str) -> None:
    assert pointers(bench.client.get(f"/v1/campaigns?{query}"))[0].startswith(query.split("=")[0])


def test_a_change_needs_the_version_that_was_read(bench: Bench) -> None:
    path = f"/v1/campaigns/{bench.submit()}"
    tag = bench.client.get(path).headers["etag"]
    problem(bench.client.patch(path, json={"priority": 1}), 428)
    changed = bench.client.patch(path, json={"priority": 1, "workers": 2}, headers={"If-Match": tag})
    assert changed.json()["priority"] == 1
    assert changed.json()["specification"]["resources"]["workers"] == 2
    problem(bench.client.patch(path, json={"priority": 2}, headers={"If-Match": tag}), 412)
    problem(bench.client.patch(path, json={"priority": 2}, headers={"If-Match": "x"}), 412)
    assert pointers(bench.client.patch(path, json={"workers": 0}, headers={"If-Match": "*"})) == ["/workers"]
    assert pointers(bench.client.patch(path, json={"state": "RUNNING"}, headers={"If-Match": "*"})) == ["/state"]


def test_verbs_follow_the_lives_of_campaigns(bench: Bench) -> None:
    path = f"/v1/campaigns/{bench.submit()}"
    assert bench.client.post(path + ":pause").json()["state"] == "PAUSED"
    assert bench.client.post(path + ":resume").json()["state"] == "QUEUED"
    problem(bench.client.post(path + ":resume"), 409)
    problem(bench.client.delete(path), 409)
    for _ in range(2):
        answer = bench.client.post(path + ":cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "CANCELLING")
    problem(bench.client.post(path + ":pause"), 409)
    bench.ledger.move_campaign(path.split("/")[-1], CampaignEvent.VANISH, reason="x")
    assert bench.client.delete(path).status_code == 204
    problem(bench.client.get(path), 404)


def test_a_retry_where_nothing_failed_is_a_problem_that_says_so(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [1.0, 2.0])
    for event in (CampaignEvent.LAUNCH, CampaignEvent.CLAIM, CampaignEvent.SUCCEED):
        bench.ledger.move_campaign(campaign_id, event, reason="x")
    refused = problem(bench.client.post(f"/v1/campaigns/{campaign_id}:retry-failed"), 409)
    assert refused["type"] == "urn:spectune:problem:nothing-failed"
    assert refused["detail"].startswith("nothing failed")
    assert bench.client.get(f"/v1/campaigns/{campaign_id}").json()["state"] == "SUCCEEDED"
    assert len(bench.client.get(f"/v1/campaigns/{campaign_id}/attempts").json()["attempts"]) == 1


@pytest.mark.parametrize(
    ("moves", "verb", "sentence"),
    [
        ([], "resume", "QUEUED allows"),
        ([], "retry-failed", "QUEUED allows"),
        ([CampaignEvent.FAIL], "cancel", "FAILED allows"),
        ([CampaignEvent.FAIL], "pause", "FAILED allows"),
        ([CampaignEvent.CANCEL, CampaignEvent.VANISH], "cancel", "CANCELLED allows nothing"),
        ([CampaignEvent.CANCEL, CampaignEvent.VANISH], "retry-failed", "CANCELLED allows nothing"),
    ],
)
def test_a_verb_that_would_do_nothing_is_refused_in_a_sentence_and_does_nothing(
    bench: Bench, moves: list[CampaignEvent], verb: str, sentence: str
) -> None:
    campaign_id = bench.submit()
    for event in moves:
        bench.ledger.move_campaign(campaign_id, event, reason="x")
    before = bench.client.get(f"/v1/campaigns/{campaign_id}").json()
    refused = problem(bench.client.post(f"/v1/campaigns/{campaign_id}:{verb}"), 409)
    assert refused["detail"].startswith(sentence)
    assert bench.client.get(f"/v1/campaigns/{campaign_id}").json() == before


def test_pausing_what_is_paused_is_harmless(bench: Bench) -> None:
    path = f"/v1/campaigns/{bench.submit()}:pause"
    assert [bench.client.post(path).json()["state"] for _ in range(2)] == ["PAUSED", "PAUSED"]


def test_an_ended_campaign_is_extended_to_a_number_so_that_repeating_is_harmless(bench: Bench) -> None:
    campaign_id = bench.submit()
    path = f"/v1/campaigns/{campaign_id}:extend"
    problem(bench.client.post(path, json={"points": 16}), 409)
    bench.ledger.move_campaign(campaign_id, CampaignEvent.FAIL, reason="x")
    for _ in range(2):
        answer = bench.client.post(path, json={"points": 16}).json()
        assert (answer["state"], answer["specification"]["search"]["points"]) == ("QUEUED", 16)
    assert pointers(bench.client.post(path, json={"points": 8})) == ["/points"]
    assert pointers(bench.client.post(path, json={})) == ["/points"]


def test_what_does_not_exist_is_a_problem(bench: Bench) -> None:
    campaign_id = bench.submit()
    for path in ("/", "/v1", "/v1/campaigns/nobody", "/v1/campaigns/NoBody", f"/v1/campaigns/{campaign_id}/trials/0"):
        problem(bench.client.get(path), 404)
    problem(bench.client.post("/v1/campaigns/nobody:cancel"), 404)
    problem(bench.client.post(f"/v1/campaigns/{campaign_id}:explode"), 404)
    problem(bench.client.put("/v1/campaigns"), 405)
    assert pointers(bench.client.get(f"/v1/campaigns/{campaign_id}/trials/{2**63}")) == ["number"]


class TestWithSettings:
    @pytest.fixture
    def settings(self, tmp_path: Any) -> Settings:
        return Settings(corpora=(tmp_path,))

    def test_a_corpus_below_an_allowed_folder_is_taken(self, bench: Bench, tmp_path: Any) -> None:
        (tmp_path / "text").mkdir()
        for name in ("a.txt", "b.txt"):
            (tmp_path / "text" / name).write_text("words and words " * 4000, encoding="utf-8")
        task = {"name": "language_model", "steps": 20, "corpus": str(tmp_path / "text")}
        assert bench.submit(task=task)
        outside = {**task, "corpus": str(tmp_path / "text" / ".." / ".." / "x")}
        assert pointers(bench.client.post("/v1/campaigns", json=document(task=outside))) == ["/task/corpus"]
