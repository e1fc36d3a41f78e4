"""Campaigns that train while their MLflow is ill end all the same, and it comes to hold what the ledger holds."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from spectune.service.ledger import ServiceLedger
from spectune.service.tracking.links import ATTACHMENTS
from spectune.service.tracking.mlflow_tracker import EXPERIMENT
from tests.fakes.ill_mlflow import WAYS, IllMlflow
from tests.fakes.mlflow_content import assert_equals_ledger
from tests.integration.conftest import DOCUMENT
from tests.integration.serving import Serving, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.environ.get("SPECTUNE_FAULTS") != "1", reason="SPECTUNE_FAULTS=1 runs five whole campaigns"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

PATIENCE_SECONDS = 280.0
STEPS = 300
CAMPAIGN = {**DOCUMENT, "task": {**DOCUMENT["task"], "steps": STEPS}, "search": {**DOCUMENT["search"], "points": 8}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, IllMlflow]]:
    """A service that writes into a server that may be ill."""
    ill = IllMlflow()
    environment = {"SPECTUNE_MLFLOW_URI": ill.address, "SPECTUNE_DATABASE_URL": ""}
    serving = Serving(tmp_path_factory.mktemp("service"), environment=environment)
    try:
        serving.wait_until_ready()
        yield serving, ill
    finally:
        serving.remove()
        ill.remove()


@pytest.mark.parametrize("way", WAYS)
def test_a_campaign_whose_mlflow_is(way: str, service: tuple[Serving, IllMlflow]) -> None:
    serving, ill = service
    ill.begin(way)
    with ServiceLedger.at(serving.data.ledger) as ledger:
        try:
            campaign_id = serving.client().submit(CAMPAIGN)["id"]
            wait_for(lambda: ledger.campaign(campaign_id).sequence >= 40, seconds=PATIENCE_SECONDS)
            ill.half_way()
            wait_for(lambda: ledger.campaign(campaign_id).state.is_terminal, seconds=PATIENCE_SECONDS)
            if way in ("down", "slow"):
                assert ledger.cursor("mlflow", campaign_id) < ledger.campaign(campaign_id).sequence, "it was not ill"
        finally:
            ill.end()
        campaign = ledger.campaign(campaign_id)
        assert campaign.state == "SUCCEEDED", campaign.message
        wait_for(lambda: ledger.cursor(ATTACHMENTS, campaign_id) >= campaign.sequence, seconds=PATIENCE_SECONDS)
        assert_equals_ledger(MlflowClient(ill.server.address), EXPERIMENT, ledger, campaign_id)
