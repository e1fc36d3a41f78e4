"""Who may call what: every route, in one table with every role."""

from __future__ import annotations

import hmac
import re
from typing import Any

import pytest

from spectune.service.api.application import ROUTES
from spectune.service.api.routing import Route
from spectune.service.campaign.model.lifecycle import CampaignEvent
from spectune.service.ledger import access
from spectune.service.ledger.access import Role
from tests.service.api.conftest import Bench, document

TABLE = {f"{route.method} {route.path}": route for route in ROUTES}


def call(bench: Bench, route: Route, campaign_id: str, key: str | None) -> Any:
    """Call a route on a campaign."""
    path = re.sub(r"\{campaign_id:\w+\}", campaign_id, route.path).replace("{number:int}", "0")
    headers = {"If-Match": "*"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
    if route.path.endswith("/events"):
        path += f"?after={2**60}"  # beyond the end: no stream that waits
    body = document() if route.path.endswith(("campaigns", ":preview")) else route.example
    return bench.client.request(route.method, path, headers=headers, json=body)


def leaves(routes: Any) -> list[Any]:
    """List the routes themselves, those of included routers too; anything else (a mount, say) fails the test."""
    return [
        leaf
        for each in routes
        for leaf in (leaves(each.original_router.routes) if hasattr(each, "original_router") else [each])
    ]


def test_the_table_holds_every_route_there_is(bench: Bench) -> None:
    """FastAPI itself adds one, the description of all the others; nothing may come in beside the table."""
    found = {f"{method} {each.path}" for each in leaves(bench.application.routes) for method in each.methods}
    assert found - TABLE.keys() == {"GET /openapi.json", "HEAD /openapi.json"}
    assert TABLE.keys() <= found


@pytest.mark.parametrize("name", TABLE)
def test_each_route_asks_for_its_role_and_hides_what_is_anothers(bench: Bench, name: str) -> None:
    route = TABLE[name]
    campaign_id = bench.submit()
    bench.add_trials(campaign_id, [1.0])
    bench.ledger.move_campaign(campaign_id, CampaignEvent.FAIL, reason="x")
    own = {role: bench.ledger.create_key(owner="local", role=role) for role in (Role.VIEWER, Role.SUBMITTER)}
    other = bench.ledger.create_key(owner="other", role=Role.SUBMITTER)
    admin = bench.ledger.create_key(owner="root", role=Role.ADMIN)
    if route.role is None:
        assert call(bench, route, campaign_id, None).status_code == 200
        return
    assert call(bench, route, campaign_id, None).status_code == 401
    assert call(bench, route, campaign_id, own[Role.VIEWER] + "0").status_code == 401
    before = bench.ledger.campaign(campaign_id)
    if "{campaign_id" in route.path:
        assert call(bench, route, campaign_id, other).status_code == 404
    if route.role is Role.SUBMITTER:
        assert call(bench, route, campaign_id, own[Role.VIEWER]).status_code == 403
        assert bench.ledger.campaign(campaign_id) == before
    least = own[route.role]
    assert call(bench, route, campaign_id, least).status_code not in (401, 403, 404)
    if route.method == "GET":
        assert call(bench, route, campaign_id, admin).status_code in (200, 204)


def test_a_list_shows_only_what_is_ones_own(bench: Bench) -> None:
    mine = bench.submit()
    viewer = bench.ledger.create_key(owner="you", role=Role.VIEWER)
    admin = bench.ledger.create_key(owner="root", role=Role.ADMIN)
    for query, key, expected in (("", viewer, []), ("?owner=local", viewer, []), ("", admin, [mine])):
        answer = bench.client.get(f"/v1/campaigns{query}", headers={"Authorization": f"Bearer {key}"}).json()
        assert [each["id"] for each in answer["campaigns"]] == expected


def test_a_wrong_key_is_told_how_to_ask(bench: Bench) -> None:
    key = bench.ledger.create_key(owner="me", role=Role.VIEWER)
    for header in (f"Basic {key}", "Bearer", "Bearer x", key, f"Bearer {key} x"):
        answer = bench.client.get("/v1/campaigns", headers={"Authorization": header})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
        assert key not in answer.text


def test_a_wrong_key_does_the_same_work_whatever_is_wrong_with_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look into the ledger and one comparison in constant time, of digests of equal length: time tells nothing."""
    key = bench.ledger.create_key(owner="me", role=Role.VIEWER)
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def compare_and_note(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(access.hmac, "compare_digest", compare_and_note)
    prefix, key_id, secret = key.split("_")
    wrong = [f"{prefix}_{key_id}_{'0' * len(secret)}", f"{prefix}_00000000_{secret}", "x", f"spx_{key_id}_{secret}"]
    for each in (*wrong, key):
        compared.clear()
        answer = bench.client.get("/v1/campaigns", headers={"Authorization": f"Bearer {each}"})
        assert (answer.status_code, compared) == (200 if each == key else 401, [(64, 64)])


def test_an_idempotency_key_is_each_owners_own(bench: Bench) -> None:
    keys = [bench.ledger.create_key(owner=owner, role=Role.SUBMITTER) for owner in ("a", "b")]
    ids = set()
    for key in keys:
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "same"}
        ids.add(bench.client.post("/v1/campaigns", json=document(), headers=headers).json()["id"])
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"Origin": "http://testserver"}, 202),
        ({"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}, 202),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://testserver.evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_a_page_of_another_site_may_change_nothing(bench: Bench, headers: dict[str, str], status: int) -> None:
    campaign_id = bench.submit()
    assert bench.client.post(f"/v1/campaigns/{campaign_id}:pause", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("spectune.localhost", 200),
        ("evil.example:8000", 403),
        ("[", 200),  # nobody's name
    ],
)
def test_without_keys_no_name_of_the_internet_is_answered_to(bench: Bench, host: str, status: int) -> None:
    assert bench.client.get("/v1/campaigns", headers={"Host": host}).status_code == status
    bench.ledger.create_key(owner="me", role=Role.VIEWER)
    assert bench.client.get("/v1/campaigns", headers={"Host": host}).status_code == 401
