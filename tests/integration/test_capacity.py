"""A campaign on a cluster that has no room for it just now waits, says for what, and goes on when a machine comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectune.service.campaign.model.records import CampaignRecord
from spectune.service.driver.cluster_capacity import WAITING
from spectune.service.ledger import Ledger
from tests.integration.conftest import DOCUMENT, Run
from tests.integration.two_nodes import TwoNodes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]


def campaign(run: Run) -> CampaignRecord | None:
    if not run.data.ledger.exists():
        return None
    with Ledger.at(run.data.ledger) as ledger:
        found = ledger.campaigns()
    return found[0] if found else None


def waits(run: Run) -> CampaignRecord | None:
    found = campaign(run)
    return found if found is not None and found.reason == WAITING else None


def test_a_campaign_waits_for_a_machine_and_pays_nothing_for_it(tmp_path: Path) -> None:
    document = {**DOCUMENT, "search": {"sampler": "random", "points": 2}, "budget": {"wall_seconds": 600}}
    document["resources"] = {"workers": 1, "cpus": 1}
    with TwoNodes(is_late=True) as cluster:
        run = Run(document, tmp_path, **cluster.variables)
        waiting = run.wait_for(waits)
        assert waiting.state == "RUNNING"
        assert waiting.message == ("waits for capacity: a worker needs a machine with 1 CPU; the only one has 0 CPUs")
        cluster.add_second()
        outcome = run.finish()
    assert outcome.exit_status == 0, outcome.stderr
    assert outcome.document["state"] == "SUCCEEDED"
    with Ledger.at(outcome.data.ledger) as ledger:
        (ended,) = ledger.campaigns()
        explained = [event.body["reason"] for event in ledger.events(ended.campaign_id, "attempt_explained")]
    assert (ended.attempt, explained) == (1, [WAITING, "driver_started"])
