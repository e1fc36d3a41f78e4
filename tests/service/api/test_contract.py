"""Schemathesis walks the API along its OpenAPI document: what one answer tells is what the next request asks about.

`SPECTUNE_FAULTS=1` (`make faults`) sends five thousand requests and more, every test run three hundred.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from spectune.service.campaign.model.lifecycle import CampaignEvent
from spectune.service.errors import IllegalTransitionError
from spectune.service.ledger.tables import metadata
from tests.service.api.conftest import Bench, document

LEAST = 5000 if os.environ.get("SPECTUNE_FAULTS") else 300
STEPS = 15
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
LIVES = [(), (CampaignEvent.LAUNCH, CampaignEvent.CLAIM), (CampaignEvent.FAIL,), (CampaignEvent.PAUSE,)]


def a_life(bench: Bench, campaign_id: str, events: tuple[CampaignEvent, ...]) -> None:
    """Let a campaign have trials, and come as far as these events take it."""
    bench.add_trials(campaign_id, [1.0, None, float("nan"), 2.0])
    for event in events:
        try:
            bench.ledger.move_campaign(campaign_id, event, reason="test")
        except IllegalTransitionError:
            return


@pytest.mark.timeout(1800)  # of five thousand requests on a busy machine
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_walk_through_the_api_meets_described_answers_only(bench: Bench) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", bench.application)
    walked = schema.exclude(path_regex="/events$")  # a live campaign's stream has no end
    counts: dict[str, int] = {}

    class Walk(walked.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            """Begin each walk in the same world, or Hypothesis could not tell one from another."""
            self.bodies, self.lives = itertools.count(), itertools.cycle(LIVES)
            with bench.ledger._transaction() as connection:
                for table in reversed(metadata.sorted_tables):
                    connection.execute(table.delete())

        def before_call(self, case: Any) -> None:
            if case.path == "/v1/campaigns" and case.method == "POST" and next(self.bodies) % 4 < 3:
                case.body = document()  # no schema describes every campaign that can be run
                case.headers.pop("Idempotency-Key", None)

        def after_call(self, response: Any, case: Any) -> None:
            key = f"{case.method} {case.path} {response.status_code}"
            counts[key] = counts.get(key, 0) + 1
            if response.status_code == 201:
                a_life(bench, response.json()["id"], next(self.lives))

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            case.validate_response(response, checks=CHECKS)

    run_state_machine_as_test(
        Walk,
        settings=settings(
            max_examples=LEAST // STEPS + 8,
            stateful_step_count=STEPS,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
    assert sum(counts.values()) >= LEAST, counts
    reached = {key.split()[1] for key in counts if key.split()[2].startswith("2")}
    assert {"/v1/campaigns/{campaign_id}:cancel", "/v1/campaigns/{campaign_id}/best"} <= reached, sorted(counts)
