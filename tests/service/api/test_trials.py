"""Trials, curves, standings and events over HTTP."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from spectune.service.campaign.analysis.comparability import comparability, group_of, lacking_sentence
from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState, TrialState
from spectune.service.findings.bundle import read_bundle
from spectune.service.ledger import entries
from tests.service.api.conftest import Bench

NAN = float("nan")


def test_trials_come_in_pages_best_first_with_what_is_not_finite_last(bench: Bench) -> None:
    path = f"/v1/campaigns/{bench.submit()}/trials"
    bench.add_trials(path.split("/")[3], [3.0, NAN, 1.0, None, 2.0])
    seen: list[dict[str, Any]] = []
    query: dict[str, Any] = {"order_by": "objective", "limit": 2}
    while True:
        page = bench.client.get(path, params=query).json()
        seen += page["trials"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert [trial["number"] for trial in seen] == [2, 4, 0, 1, 3]
    assert [trial["objective"] for trial in seen] == [1.0, 2.0, 3.0, "NaN", None]
    arms = bench.client.get(path, params={"arm": "adamw"}).json()["trials"]
    assert [trial["number"] for trial in arms] == [1, 3]
    assert bench.client.get(path, params={"arm": "nobody"}).status_code == 422
    assert bench.client.get(path, params={"state": "PENDING"}).json()["trials"][0]["number"] == 3
    mixed = bench.client.get(path, params={"cursor": query["cursor"], "order_by": "number"})
    assert mixed.status_code == 422


def test_a_curve_is_downsampled_between_its_ends(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [3.0])
    for step in range(1, 50):
        report: dict[str, Any] = {
            "trial": 0,
            "step": step,
            "metrics": {"a": step, "b": NAN},
            "objective": 1.0,
            "device_seconds": 0.0,
        }
        record = entries.observation(**report, produced_at=1)
        bench.ledger.append(campaign_id, 1, [(100 + step, record)])
    path = f"/v1/campaigns/{campaign_id}/trials/0/metrics"
    whole = bench.client.get(path).json()["observations"]
    assert [each["step"] for each in whole] == [*range(1, 50), 60]
    few = bench.client.get(path, params={"downsample": 5, "names": "b"}).json()["observations"]
    assert [each["step"] for each in few][:: len(few) - 1] == [1, 60]
    assert few[0]["metrics"] == {"b": "NaN"}
    assert len(few) == 5


def test_the_leaderboard_ranks_points_and_the_best_is_the_best_of_all(bench: Bench) -> None:
    campaign_id = bench.submit()
    path = f"/v1/campaigns/{campaign_id}"
    assert bench.client.get(path + "/best").json()["best"] is None
    bench.add_trials(campaign_id, [3.0, 0.5, 1.0, 2.0, None])
    board = bench.client.get(path + "/leaderboard").json()
    assert [[point["value"] for point in arm["points"]] for arm in board["arms"]] == [[1.0, 3.0], [0.5, 2.0]]
    assert board["arms"][0]["num_trials"] == {"COMPLETED": 2, "PENDING": 1}
    best = bench.client.get(path + "/best").json()["best"]
    assert (best["arm"], best["value"], best["trials"]) == ("adamw", 0.5, [1])


def messages(text: str) -> list[dict[str, Any]]:
    """Read a stream of events."""
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != ":")
        if fields:
            found.append({"id": int(fields["id"]), "event": fields["event"], **json.loads(fields["data"])})
    return found


def test_events_tell_everything_once_and_go_on_where_a_client_stopped(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [3.0, NAN])
    bench.ledger.move_campaign(campaign_id, CampaignEvent.FAIL, reason="x")
    path = f"/v1/campaigns/{campaign_id}/events"
    told = messages(bench.client.get(path).text)
    last = bench.ledger.campaign(campaign_id).sequence
    assert [each["id"] for each in told] == list(range(1, last + 1))
    assert {each["event"] for each in told} >= {"campaign_created", "trial_created", "observation", "campaign_moved"}
    assert [each["metrics"]["validation_loss"] for each in told if each["event"] == "observation"] == [3.0, "NaN"]
    rest = messages(bench.client.get(path, headers={"Last-Event-ID": "3"}).text)
    assert [each["id"] for each in rest] == list(range(4, last + 1))
    assert messages(bench.client.get(path, params={"after": 3}).text) == rest
    assert bench.client.get(path, headers={"Last-Event-ID": str(last)}).status_code == 204
    assert bench.client.get(path, headers={"Last-Event-ID": "x"}).status_code == 422


def test_the_catalogue_names_every_option_with_its_bounds(bench: Bench) -> None:
    optimizers = bench.client.get("/v1/optimizers").json()["items"]
    momentum = optimizers["muon"]["properties"]["momentum"]
    assert (momentum["type"], momentum["minimum"], momentum["exclusiveMaximum"]) == ("number", 0.0, 1.0)
    assert "steps" not in bench.client.get("/v1/tasks").json()["items"]["matrix_completion"]["properties"]
    assert "lr" in bench.client.get("/v1/search-spaces").json()["items"]["root"]


def test_the_default_spaces_of_a_preset_can_be_asked_for(bench: Bench) -> None:
    usual, own = (
        bench.client.get("/v1/search-spaces", params={"preset": preset}).json()["items"]["sgd"]
        for preset in ("", "polargrad-6.3")
    )
    assert usual["lr"] != own["lr"]
    refused = bench.client.get("/v1/search-spaces", params={"preset": "polargrad-6.4"})
    assert refused.status_code == 422
    assert "unknown preset (did you mean 'polargrad-6." in refused.text


def test_trials_say_what_they_are_for_and_finals_stand_apart(bench: Bench) -> None:
    campaign_id = bench.submit(finals={"keep": 1, "seeds": 2})
    bench.add_trials(campaign_id, [3.0, 2.0, 1.0, 4.0])
    records: list[Any] = []
    for number, arm, value in ((100, 0, 9.0), (101, 0, 9.5), (102, 1, 7.0), (103, 1, 7.5)):
        place: dict[str, Any] = {"arm": arm, "point": 1 - arm, "seed_index": 8, "ask": {"phase": "final"}, "at": 1}
        records.append(entries.trial_created(trial=number, config={"lr": 0.5}, **place))
        report: dict[str, Any] = {"metrics": {"validation_loss": value}, "device_seconds": 0.5, "produced_at": 1}
        records.append(entries.observation(trial=number, step=60, objective=value, **report))
        records.append(entries.trial_moved(trial=number, state=TrialState.COMPLETED, reason="end_of_schedule", at=2))
    path = f"/v1/campaigns/{campaign_id}"
    assert bench.client.get(f"{path}/best").json()["phase"] == "search"
    bench.ledger.append(campaign_id, 1, list(enumerate(records, start=1000)))
    found = {
        phase: [each["number"] for each in bench.client.get(f"{path}/trials", params={"phase": phase}).json()["trials"]]
        for phase in ("search", "final", "audit")
    }
    assert found == {"search": [0, 1, 2, 3], "final": [100, 101, 102, 103], "audit": []}
    assert bench.client.get(f"{path}/trials/102").json()["phase"] == "final"
    assert bench.client.get(f"{path}/trials", params={"phase": "warm"}).status_code == 422
    best = bench.client.get(f"{path}/best").json()
    assert (best["phase"], best["best"]["value"], best["best"]["arm"]) == ("final", 7.25, "adamw")
    assert [arm["finals"][0]["value"] for arm in bench.client.get(f"{path}/leaderboard").json()["arms"]] == [9.25, 7.25]


def test_two_objectives_have_a_front_and_no_best_point(bench: Bench) -> None:
    """Every address of such a campaign answered 500: `objective` was taken for a mapping."""
    both = [{"metric": "validation_loss", "mode": "minimize"}, {"metric": "observed_loss", "mode": "minimize"}]
    campaign_id = bench.submit(
        task={"name": "matrix_completion", "rows": 20, "columns": 10, "rank": 2, "steps": 60},
        objective=both,
        search={"sampler": "nsga2", "points": 4},
        stopping={"rule": "none"},
    )
    attempt, records = bench.ledger.begin_attempt(campaign_id), []
    for number, (first, second) in enumerate([(1.0, 9.0), (2.0, 9.5), (3.0, 1.0), (4.0, NAN)]):
        place: dict[str, Any] = {"arm": 0, "point": number, "seed_index": 0, "at": 1}
        place["ask"] = {"coordinates": {"lr": number / 4}}
        records.append(entries.trial_created(trial=number, config={"lr": 0.5}, **place))
        told: dict[str, Any] = {"metrics": {"validation_loss": first, "observed_loss": second}, "objective": first}
        records.append(entries.observation(trial=number, step=60, device_seconds=0.5, produced_at=1, **told))
        records.append(entries.trial_moved(trial=number, state=TrialState.COMPLETED, reason="end_of_schedule", at=2))
    bench.ledger.append(campaign_id, attempt, list(enumerate(records, start=1)))
    path = f"/v1/campaigns/{campaign_id}"
    best = bench.client.get(f"{path}/best").json()
    assert best["best"] is None
    assert [(each["point"], each["costs"]) for each in best["front"]] == [
        (0, {"validation_loss": 1.0, "observed_loss": 9.0}),
        (2, {"validation_loss": 3.0, "observed_loss": 1.0}),
    ]
    board = bench.client.get(f"{path}/leaderboard").json()
    assert (board["metric"], "first of two objectives" in board["how"]) == ("validation_loss", True)
    for page in ("", "/trials", "/report"):
        assert bench.client.get(path + page).status_code == 200


def test_the_report_is_json_or_a_page_that_needs_no_net(bench: Bench) -> None:
    campaign_id = bench.submit(name="<b>bold</b>")
    bench.add_trials(campaign_id, [3.0, 2.0, 1.0, 4.0])
    path = f"/v1/campaigns/{campaign_id}/report"
    report = bench.client.get(path)
    assert report.headers["content-type"] == "application/json"
    assert [arm["name"] for arm in report.json()["arms"]] == ["muon", "adamw"]
    page = bench.client.get(path, headers={"Accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert campaign_id in page.text
    assert "<b>bold</b>" not in page.text


def test_one_trial_is_stopped_and_one_that_has_ended_is_not(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [None, 2.0])
    path = f"/v1/campaigns/{campaign_id}/trials"
    answers = [bench.client.post(f"{path}/0:stop") for _ in range(2)]
    assert [(each.status_code, each.json()["state"]) for each in answers] == [(202, "PENDING")] * 2
    assert bench.ledger.stops_asked(campaign_id) == [0]
    assert [bench.client.post(f"{path}/{number}:stop").status_code for number in (1, 9)] == [409, 404]


def test_the_bundle_is_a_file_that_can_be_read_again(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [3.0, 2.0])
    answer = bench.client.get(f"/v1/campaigns/{campaign_id}/bundle")
    assert answer.headers["content-type"] == "application/zip"
    bundle = read_bundle(answer.content)
    assert [each.curve[60]["validation_loss"] for each in bundle.trials] == [3.0, 2.0]
    assert answer.content == bench.client.get(f"/v1/campaigns/{campaign_id}/bundle").content


def test_a_campaign_tells_its_best_trial_and_a_guess_at_what_is_left(bench: Bench) -> None:
    campaign_id = bench.submit(resources={"workers": 2, "cpus": 1})
    bench.add_trials(campaign_id, [3.0, 2.0, NAN, 4.0])
    for event in (CampaignEvent.LAUNCH, CampaignEvent.CLAIM):
        bench.ledger.move_campaign(campaign_id, event, reason="x")
    campaign = bench.client.get(f"/v1/campaigns/{campaign_id}").json()
    best = {"arm": "adamw", "point": 0, "trials": [1], "value": 2.0, "half_width": None, "phase": "search"}
    assert campaign["best"] == best | {"how": "best search value: one seed, so small differences may be chance"}
    assert campaign["why_no_best"] == ""
    assert campaign["progress"]["text"] == "4 completed of 16"
    assert campaign["progress"]["eta_seconds"] == pytest.approx((16 - 4) * 0.5 / 2)
    (listed,) = bench.client.get("/v1/campaigns").json()["campaigns"]
    assert listed == campaign
    bench.ledger.move_campaign(campaign_id, CampaignEvent.PAUSE, reason="x")
    assert bench.client.get(f"/v1/campaigns/{campaign_id}").json()["progress"]["eta_seconds"] is None


def test_a_campaign_of_which_an_arm_was_never_tried_has_no_best_and_says_so(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [1.0])  # of the first arm alone
    path = f"/v1/campaigns/{campaign_id}"
    running = bench.client.get(path + "/best").json()
    assert (running["lacking"], running["best"]["value"]) == ("", 1.0)
    for event in (CampaignEvent.CANCEL, CampaignEvent.VANISH):
        bench.ledger.move_campaign(campaign_id, event, reason="x")
    ended = bench.client.get(path + "/best").json()
    _, other = (arm["name"] for arm in bench.client.get(path).json()["specification"]["arms"])
    sentence = f"{other}: never tried; arms are not comparable"
    assert (ended["lacking"], ended["best"]) == (sentence, None)
    report = bench.client.get(path + "/report").json()
    assert (report["lacking"], report["notes"][0]) == ({other: "never tried"}, sentence)
    page = bench.client.get(path + "/report", headers={"Accept": "text/html"}).text
    assert f"<ul><li>{sentence}</li>" in page


def test_tallies_in_the_ledger_lack_what_the_trials_lack(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [1.0, math.nan, None, 2.0, math.inf, None, 3.0])
    names, campaign = ["muon", "adamw"], bench.ledger.campaign(campaign_id)
    trials, tallies = bench.ledger.trials(campaign_id), bench.ledger.tallies([campaign_id])[campaign_id]
    for state in CampaignState:
        expected = comparability(names, map(group_of, trials), state=state).sentence
        assert lacking_sentence(replace(campaign, state=state), tallies) == expected
    assert sum(each.device_seconds for each in tallies) == sum(each.device_seconds for each in trials)


def test_a_list_keeps_up_with_a_campaign_that_changes_while_it_is_listed(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [3.0, 2.0, None])

    def listed() -> tuple[float, str]:
        (campaign,) = bench.client.get("/v1/campaigns").json()["campaigns"]
        assert (
            campaign["best"]["value"] == bench.client.get(f"/v1/campaigns/{campaign_id}/best").json()["best"]["value"]
        )
        return campaign["best"]["value"], campaign["progress"]["text"]

    assert listed() == (2.0, "1 pending, 2 completed of 16")
    place: dict[str, Any] = {"trial": 2, "objective": 1.0, "produced_at": 3, "device_seconds": 0.5}
    told = [entries.observation(step=60, metrics={"validation_loss": 1.0}, **place)]
    told.append(entries.trial_moved(trial=2, state=TrialState.COMPLETED, reason="end_of_schedule", at=4))
    bench.ledger.append(campaign_id, 1, list(enumerate(told, start=100)))
    assert listed() == (1.0, "3 completed of 16")


def test_logs_hold_what_workers_printed_or_only_what_one_trial_did(bench: Bench) -> None:
    campaign_id = bench.submit()
    context = bench.application.state.context
    bench.application.state.context = replace(
        context, worker_output=lambda campaign, trial: f"of {campaign}, trial {trial}"
    )
    path = f"/v1/campaigns/{campaign_id}/logs"
    assert f"of {campaign_id}, trial None" in bench.client.get(path).text
    assert bench.client.get(path, params={"trial": 3}).text == f"of {campaign_id}, trial 3"
    assert bench.client.get(path, params={"trial": -1}).status_code == 422
