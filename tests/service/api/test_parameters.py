"""Query parameters that nobody asked for: refused with the nearest, on every verb of the API."""

from __future__ import annotations

import re
from typing import Any

import pytest

from spectune.service.api.application import ROUTES
from spectune.service.api.openapi import document as openapi_document
from spectune.service.api.parameters import query_names
from tests.service.api.conftest import Bench, document


def problems(answer: Any) -> list[dict[str, str]]:
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] == "urn:spectune:problem:parameters"
    found: list[dict[str, str]] = answer.json()["errors"]
    return found


@pytest.mark.parametrize(
    ("path", "pointer", "detail"),
    [
        ("/v1/campaigns?sate=RUNNING", "sate", "unknown parameter; did you mean 'state'?"),
        ("/v1/campaigns?state=RUNNING&limits=3", "limits", "unknown parameter; did you mean 'limit'?"),
        ("/v1/campaigns?State=RUNNING", "State", "unknown parameter; did you mean 'state'?"),
        ("/v1/campaigns?", "", ""),
        ("/v1/campaigns?x=1", "x", "unknown parameter; known: state, owner, order_by, limit, cursor"),
        ("/v1/optimizers?x", "x", "unknown parameter; none is known here"),
    ],
)
def test_a_mistyped_parameter_is_refused_with_the_nearest(bench: Bench, path: str, pointer: str, detail: str) -> None:
    answer = bench.client.get(path)
    if not pointer:
        assert answer.status_code == 200
        return
    assert problems(answer) == [{"pointer": pointer, "detail": detail}]


def test_every_verb_of_the_api_refuses_them_and_probes_do_not(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [1.0])
    for route in ROUTES:
        path = re.sub(r"\{campaign_id:\w+\}", campaign_id, route.path).replace("{number:int}", "0")
        answer = bench.client.request(route.method, f"{path}?nonsense=1", json=document() if route.example else None)
        if route.path.startswith("/v1/"):
            assert [each["pointer"] for each in problems(answer)] == ["nonsense"], (route.method, path)
        else:
            assert answer.status_code == 200, path
    assert bench.client.get(f"/v1/campaigns/{campaign_id}").json()["state"] == "QUEUED"  # nothing was done


def test_the_parameters_that_are_known_are_those_of_the_document() -> None:
    paths = openapi_document()["paths"]
    for route in ROUTES:
        told = paths[re.sub(r":\w+\}", "}", route.path)][route.method.lower()].get("parameters", [])
        assert set(query_names(route.endpoint)) == {each["name"] for each in told if each["in"] == "query"}, route.path


def test_an_unknown_key_of_a_body_is_pointed_at(bench: Bench) -> None:
    campaign_id = bench.submit()
    answer = bench.client.patch(f"/v1/campaigns/{campaign_id}", json={"prio/rity": 1}, headers={"If-Match": "*"})
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/prio~1rity"
    assert "did you mean 'priority'?" in error["detail"]
