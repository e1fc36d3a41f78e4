"""What a campaign would do and take, told without doing any of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spectune.service.campaign.specification.specification import parse
from spectune.service.campaign.study import arm_study
from spectune.service.ledger import entries
from spectune.service.ledger.access import Role
from tests.service.api.conftest import Bench, document


def add_plan(bench: Bench, campaign_id: str, arm: int, seconds: dict[str, float]) -> None:
    """Let a worker have measured how fast the trials of an arm train together."""
    attempt = bench.ledger.begin_attempt(campaign_id)
    place: dict[str, Any] = {"point": 0, "seed_index": 0, "config": {}, "ask": {}, "at": 1}
    plan = {"members": 4, "why": "x", "predicted_gain": 2.0, "seconds_per_member_step": seconds, "member_bytes": 9}
    records = [
        entries.trial_created(trial=arm, arm=arm, **place),
        entries.planned(trial=arm, arm=arm, plan=plan, at=1),
    ]
    bench.ledger.append(campaign_id, attempt, list(enumerate(records, start=1)))


def test_a_task_that_nobody_has_trained_has_a_plan_to_be_found_out_and_no_estimate(bench: Bench) -> None:
    answer = bench.client.post("/v1/campaigns:preview", json=document()).json()
    assert [(each["members"], each["why"]) for each in answer["fusion"]] == [
        (None, "the first worker finds it out")
    ] * 2
    assert (answer["estimate"]["device_seconds"], answer["estimate"]["wall_seconds"]) == (None, None)
    told = bench.client.post("/v1/campaigns:preview", json=document(resources={"members": 3})).json()
    assert {each["members"] for each in told["fusion"]} == {3}
    assert bench.client.get("/v1/campaigns").json()["campaigns"] == []


def test_what_earlier_campaigns_of_the_same_task_measured_is_the_estimate(bench: Bench) -> None:
    earlier = bench.submit()
    add_plan(bench, earlier, 0, {"1": 0.02, "4": 0.01})
    add_plan(bench, earlier, 1, {"1": 0.004, "4": 0.002})
    asked = document(stopping={"rule": "none"}, resources={"workers": 2, "cpus": 1})
    answer = bench.client.post("/v1/campaigns:preview", json=asked).json()
    assert [(each["members"], each["seconds_per_step"]) for each in answer["fusion"]] == [(4, 0.01), (4, 0.002)]
    assert earlier in answer["fusion"][0]["why"]
    assert answer["estimate"]["steps"] == 16 * 60
    assert answer["estimate"]["device_seconds"] == pytest.approx(8 * 60 * (0.01 + 0.002))
    assert answer["estimate"]["wall_seconds"] == pytest.approx(8 * 60 * (0.01 + 0.002) / 2)
    other = asked | {"task": asked["task"] | {"rank": 3}}
    assert bench.client.post("/v1/campaigns:preview", json=other).json()["estimate"]["device_seconds"] is None


@pytest.mark.parametrize("sampler", ["random", "grid", "sobol"])
def test_the_points_are_those_that_the_search_will_try(bench: Bench, sampler: str) -> None:
    space = {"lr": {"log_uniform": [0.01, 0.1]}, "momentum": {"choice": [0.9, 0.95]}}
    grid = {"levels": 2} if sampler == "grid" else {}
    asked = document(search={"sampler": sampler, "points": 4, "search_seed": 7} | grid)
    asked["arms"] = [{"optimizer": "muon", "name": name, "space": space} for name in ("a", "b")]
    told = bench.client.post("/v1/campaigns:preview", json=asked).json()["points"]
    for index, arm in enumerate(told):
        study = arm_study(parse(asked), index)
        assert arm["configurations"] == [json.loads(json.dumps(point.config)) for point in iter(study.ask, None)]
        assert len(arm["configurations"]) == 4
    assert told[0]["configurations"] != told[1]["configurations"]
    adaptive = document(search={"sampler": "tpe", "points": 4})
    answer = bench.client.post("/v1/campaigns:preview", json=adaptive).json()
    assert {each["configurations"] for each in answer["points"]} == {None}


def test_finals_and_audits_count_as_far_as_the_budget_has_room(bench: Bench) -> None:
    search, finals = {"sampler": "random", "points": 4}, {"keep": 1, "seeds": 3}
    asked = document(search=search, finals=finals, stopping={"rule": "none"})
    answer = bench.client.post("/v1/campaigns:preview", json=asked).json()
    assert (answer["num_trials"], answer["num_trials_beyond"], answer["most_steps"]) == (8, 6, 14 * 60)
    assert answer["estimate"]["steps"] == 14 * 60
    tight = bench.client.post("/v1/campaigns:preview", json=asked | {"budget": {"trials": 10}}).json()
    assert (tight["num_trials"], tight["num_trials_beyond"]) == (8, 2)


def test_another_owners_campaigns_tell_nothing(bench: Bench) -> None:
    add_plan(bench, bench.submit(), 0, {"1": 0.02, "4": 0.01})
    key = bench.ledger.create_key(owner="you", role=Role.VIEWER)
    headers = {"Authorization": f"Bearer {key}"}
    answer = bench.client.post("/v1/campaigns:preview", json=document(), headers=headers).json()
    assert answer["fusion"][0]["seconds_per_step"] is None


@pytest.mark.parametrize(
    ("stopping", "expected"),
    [
        ({"rule": "none"}, 60.0),
        ({"rule": "successive_halving", "min_steps": 20, "reduction_factor": 2}, 20 + 20 / 2 + 20 / 4),
        ({"rule": "median", "min_steps": 20}, 40.0),
        ({"rule": "hyperband", "min_steps": 20, "reduction_factor": 2}, (35 + (40 + 10) + 60) / 3),
    ],
)
def test_a_rule_saves_what_it_stops(stopping: dict[str, Any], expected: float) -> None:
    asked = document(stopping=stopping)
    asked["objective"]["every_steps"] = 10
    assert parse(asked).expected_steps() == pytest.approx(expected)
