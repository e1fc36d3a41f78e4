"""What operators ask, and the document that describes it all."""

from __future__ import annotations

import json
from pathlib import Path

from spectune.service.api import examples
from spectune.service.api.openapi import document as openapi_document
from spectune.service.api.problems import ProblemDocument
from spectune.service.api.schemas import Campaign
from spectune.service.errors import LedgerError
from tests.service.api.conftest import Bench

STORED = Path(__file__).parents[3] / "docs" / "openapi.json"


def test_health_is_alive_and_readiness_names_what_is_missing(bench: Bench) -> None:
    assert bench.client.get("/healthz").json() == {"status": "ok", "degraded": {}}
    assert bench.client.get("/readyz").json() == {"status": "degraded", "degraded": {"mlflow": "it does not answer"}}


def test_a_ledger_that_does_not_answer_is_503_with_a_time_to_come_back(bench: Bench) -> None:
    with bench.ledger._transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE campaigns RENAME TO away")
        connection.exec_driver_sql("ALTER TABLE submissions RENAME TO gone")
    answer = bench.client.get("/v1/campaigns")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "sqlite" not in answer.text


def test_readiness_falls_with_the_ledger_and_life_does_not(bench: Bench) -> None:
    class Gone:
        def clock(self) -> int:
            raise LedgerError("gone")

    context = bench.application.state.context
    bench.application.state.context = type(context)(**{**vars(context), "ledger": Gone()})
    assert bench.client.get("/readyz").status_code == 503
    assert bench.client.get("/healthz").status_code == 200


def test_metrics_count_campaigns_and_requests_without_the_names_of_either(bench: Bench) -> None:
    campaign_id = bench.submit()
    bench.client.get(f"/v1/campaigns/{campaign_id}")
    bench.client.get("/somewhere/else")
    bench.add_trials(campaign_id, [1.0, None, 2.0])
    text = bench.client.get("/metrics").text
    assert 'spectune_campaigns{state="QUEUED"} 1.0' in text
    assert "spectune_queue_depth 1.0" in text
    assert 'route="/v1/campaigns/{campaign_id}"' in text.replace(":identifier", "")
    assert "spectune_observations_total 2.0" in text
    assert 'spectune_attempts{came="begun"} 1.0' in text
    for name in ("heartbeat_age_seconds", "queue_oldest_seconds", "projector_lag", "request_seconds_bucket"):
        assert f"spectune_{name}" in text
    assert campaign_id not in text
    assert "somewhere" not in text


def test_the_stored_openapi_document_is_the_true_one() -> None:
    """`python -m spectune.service.api.openapi > docs/openapi.json` writes it anew."""
    assert json.loads(STORED.read_text(encoding="utf-8")) == json.loads(json.dumps(openapi_document()))


def test_the_examples_are_answers_that_could_be_given() -> None:
    schemas = openapi_document()["components"]["schemas"]
    for name, model, example in (
        ("Campaign", Campaign, examples.CAMPAIGN),
        ("Problem", ProblemDocument, examples.PROBLEM),
    ):
        assert model.model_validate(example).model_dump(mode="json") == example
        shown = {name: value for name, value in example.items() if value is not None}
        assert schemas[name]["examples"] == [shown]


def test_every_operation_says_what_it_does_and_how_it_refuses() -> None:
    document = openapi_document()
    assert document["openapi"].startswith("3.1")
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            assert operation["description"], (verb, path)
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], (verb, path, status)
