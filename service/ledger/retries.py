"""Retries: the trials of a campaign that failed or were lost wait for a worker again."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select, update

from spectune.service.campaign.model.lifecycle import (
    TRIAL_TRANSITIONS,
    CampaignState,
    TrialEvent,
    TrialState,
    has_failures,
    next_trial_state,
)
from spectune.service.errors import NothingFailedError
from spectune.service.ledger import entries
from spectune.service.ledger.tables import campaigns, trials


def reopen_trials(connection: Connection, campaign: Any, *, state: CampaignState, at: int) -> None:
    """Let the failed trials of a campaign wait for a worker again.

    Args:
        connection: A transaction that has locked the campaign; the caller takes it back if this raises.
        campaign: Its row.
        state: The state that it had.
        at: The time now.

    Raises:
        NothingFailedError: Neither the campaign nor one of its trials has failed.
    """
    mine = trials.c.campaign_id == campaign.id
    states = {TrialState(each) for each in connection.execute(select(trials.c.state).distinct().where(mine)).scalars()}
    if not has_failures(state, states):
        raise NothingFailedError(f"nothing failed, so there is nothing to retry: got a campaign that is {state}")
    broken = [each for each in states if each in TRIAL_TRANSITIONS[TrialEvent.RETRY]]
    found = connection.execute(select(trials.c.number, trials.c.state).where(mine, trials.c.state.in_(broken))).all()
    records = [
        entries.trial_moved(
            trial=each.number, state=next_trial_state(TrialState(each.state), TrialEvent.RETRY), reason="retry", at=at
        )
        for each in sorted(found, key=lambda each: int(each.number))
    ]
    sequence = entries.enter(connection, campaign.id, int(campaign.attempt), records, sequence=int(campaign.sequence))
    connection.execute(update(campaigns).where(campaigns.c.id == campaign.id).values(sequence=sequence))
