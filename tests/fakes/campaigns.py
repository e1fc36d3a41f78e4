"""Campaigns that nobody has trained: their records, as a driver would have told them, in a ledger."""

from __future__ import annotations

import math
from typing import Any

from spectune.service.campaign.model.lifecycle import CampaignEvent, TrialState
from spectune.service.campaign.specification.specification import parse
from spectune.service.ledger import Ledger, ServiceLedger, entries
from spectune.service.ledger.spool import Record

STEPS, EVERY = 200, 20
PRODUCED_AT = 1_700_000_000_000
DOCUMENT: dict[str, Any] = {
    "name": "never trained",
    "task": {"name": "matrix_completion", "rows": 30, "columns": 20, "rank": 2, "steps": STEPS},
    "objective": {"metric": "validation_loss", "mode": "minimize", "every_steps": EVERY},
    "arms": [{"optimizer": "muon"}, {"optimizer": "adamw"}],
    "search": {"sampler": "random"},
}


def value(trial: int, step: int, num_trials: int) -> float:
    """Return a trial's loss: every one falls at the same pace from a height of its own, trial 0 the lowest."""
    return (1.0 + trial * 37 % num_trials / num_trials) * math.exp(-step / 100)


def enter_campaign(ledger: Ledger | ServiceLedger, campaign_id: str, *, num_trials: int, **changes: Any) -> None:
    """Enter a campaign of two arms that has succeeded.

    Args:
        ledger: Where to.
        campaign_id: Its id.
        num_trials: Of both arms; 37 does not divide it.
        changes: Sections of its specification.
    """
    document = {**DOCUMENT, "search": {**DOCUMENT["search"], "points": num_trials // 2}} | changes
    specification = parse(document)
    ledger.create_campaign(campaign_id, name=specification.name, specification=specification.document())
    attempt = ledger.begin_attempt(campaign_id)
    ledger.move_campaign(campaign_id, CampaignEvent.LAUNCH, reason="launching")
    ledger.move_campaign(campaign_id, CampaignEvent.CLAIM, reason="driver_started")
    records = [record for trial in range(num_trials) for record in _records(trial, num_trials)]
    ledger.append(campaign_id, attempt, list(enumerate(records, start=1)))
    ledger.move_campaign(campaign_id, CampaignEvent.SUCCEED, reason="all_trials_ended")


def _records(trial: int, num_trials: int) -> list[Record]:
    place: dict[str, Any] = {"arm": trial % 2, "point": trial // 2, "seed_index": 0}
    coordinates = {"coordinates": {"lr": trial / num_trials}}
    config = {"lr": 0.001 * 1.01**trial, "weight_decay": 0.0}
    records = [entries.trial_created(trial=trial, config=config, ask=coordinates, at=PRODUCED_AT, **place)]
    for step in range(EVERY, STEPS + 1, EVERY):
        loss = value(trial, step, num_trials)
        told = {"metrics": {"validation_loss": loss, "loss": 0.9 * loss, "lr": 0.1}, "objective": loss}
        at = PRODUCED_AT + 10 * step
        records.append(entries.observation(trial=trial, step=step, device_seconds=0.1, produced_at=at, **told))  # type: ignore[arg-type]
    end = PRODUCED_AT + 10 * STEPS
    return [*records, entries.trial_moved(trial=trial, state=TrialState.COMPLETED, reason="end_of_schedule", at=end)]
