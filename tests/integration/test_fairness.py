"""A budget in seconds is shared between the arms of a real campaign, on one worker that holds them all."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from spectune.service.ledger import Ledger
from tests.integration.conftest import DOCUMENT, Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

OPTIMIZERS = ["muon", "polargrad", "root", "adamw"]


def test_four_arms_use_a_budget_in_seconds_side_by_side(tmp_path: Path) -> None:
    """The first arm had tried all its points when the second began; the others were never tried."""
    document = DOCUMENT | {
        "task": {"name": "matrix_completion", "rows": 120, "columns": 100, "rank": 3, "steps": 4000},
        "objective": {"metric": "validation_loss", "every_steps": 50},
        "arms": [{"optimizer": name, "space": "default"} for name in OPTIMIZERS],
        "search": {"sampler": "tpe", "points": 16},
        "stopping": {"rule": "none"},
        "budget": {"device_seconds": 12.0},
        "resources": {"workers": 1},
    }
    outcome = Run(document, tmp_path).finish()
    assert outcome.exit_status == 0, outcome.stderr
    used: defaultdict[int, float] = defaultdict(float)
    with Ledger.at(outcome.data.ledger) as ledger:
        (campaign,) = ledger.campaigns()
        for trial in ledger.trials(campaign.campaign_id):
            used[trial.arm] += trial.device_seconds
        observations = ledger.observations(campaign.campaign_id)
    assert campaign.reason == "device_seconds_spent"
    assert sorted(used) == [0, 1, 2, 3]
    assert sum(used.values()) >= 12.0
    assert max(used.values()) - min(used.values()) <= 1.0, json.dumps(used)
    assert len({each.trial for each in observations}) >= 4
