"""Whatever is sent, the answer is one that the OpenAPI document describes, and never a 500.

`SPECTUNE_FAULTS=1` (`make faults`) tries five thousand requests, every test run a hundred; `test_contract.py` has more.
"""

from __future__ import annotations

import copy
import json
import os
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectune.service.api.application import ROUTES
from spectune.service.api.routing import Route
from tests.service.api.conftest import Bench, document

EXAMPLES = 5000 if os.environ.get("SPECTUNE_FAULTS") else 100
FOLLOWED = "/events"

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 10**400, 0, 1, -1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["\0", "\ud800", "'; --", "default", "muon", "built-in", "a:b", "../x", "x" * 5000])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the paths to everything in a document."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in children for place in places(each, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a document in which one place holds something else."""
    if not path:
        return new
    changed = copy.deepcopy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


@st.composite
def requests(draw: st.DrawFn) -> tuple[Route, dict[str, Any], bytes | None, dict[str, str]]:
    """Draw a route with odd parameters, an almost right body, and odd headers."""
    route = draw(st.sampled_from(ROUTES))
    query = draw(
        st.dictionaries(
            st.sampled_from(["limit", "cursor", "order_by", "state", "owner", "arm", "names", "downsample", "after"]),
            st.text(max_size=12) | st.integers().map(str) | st.sampled_from(["objective", "RUNNING", "\0", "WyJhIl0"]),
            max_size=3,
        )
    )
    body = None
    if route.example is not None:
        right = document() if "campaigns" in route.path and "{" not in route.path else route.example
        content = replaced(right, draw(st.sampled_from(places(right))), draw(values))
        body = json.dumps(content).encode()[: draw(st.sampled_from([None, None, None, 40]))]
    headers = draw(
        st.dictionaries(
            st.sampled_from(["If-Match", "Idempotency-Key", "Last-Event-ID", "Authorization"]),
            st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=300),
            max_size=2,
        )
    )
    return route, query, body, headers


@pytest.fixture
def described(bench: Bench) -> dict[str, Any]:
    paths: dict[str, Any] = bench.application.openapi()["paths"]
    return paths


@pytest.mark.timeout(1800)  # of five thousand requests on a busy machine
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(request=requests(), known=st.booleans(), number=st.sampled_from(["0", "1", "99999999999999999999", "-1", "x"]))
def test_every_answer_is_a_described_one(
    bench: Bench, described: dict[str, Any], request: Any, known: bool, number: str
) -> None:
    route, query, body, headers = request
    campaigns = bench.client.get("/v1/campaigns", params={"limit": 1}).json()["campaigns"]
    campaign_id = campaigns[0]["id"] if known and campaigns else "nobody"
    path = re.sub(r"\{campaign_id:\w+\}", campaign_id, route.path).replace("{number:int}", number)
    if route.path.endswith(FOLLOWED):  # a live campaign's stream has no end
        campaign_id, path = "nobody", route.path.replace("{campaign_id:identifier}", "nobody")
    sent = {"content-type": "application/json"} | headers
    answer = bench.client.request(route.method, path, params=query, content=body, headers=sent)
    assert answer.status_code < 500, (route.method, path, query, body, answer.text)
    if answer.status_code == 404 and answer.json()["detail"] == "Not Found":
        return  # the path is no route at all
    template = re.sub(r":(identifier|int)\}", "}", route.path)
    statuses = described[template][route.method.lower()]["responses"]
    assert str(answer.status_code) in statuses, (route.method, path, answer.status_code, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
