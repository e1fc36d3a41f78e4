"""From database rows to the values of `spectune.service.campaign.model.records`."""

from __future__ import annotations

from typing import Any

from spectune.service.campaign.model.lifecycle import CampaignState, TrialState
from spectune.service.campaign.model.numbers import from_column, metrics_from_json
from spectune.service.campaign.model.records import CampaignRecord, Event, Observation, Phase, TrialOutcome, TrialRecord


def campaign(row: Any) -> CampaignRecord:
    """Read a row of `campaigns`."""
    return CampaignRecord(
        campaign_id=row.id,
        name=row.name,
        state=CampaignState(row.state),
        reason=row.reason,
        message=row.message,
        since=row.since,
        created_at=row.created_at,
        specification=row.specification,
        attempt=row.attempt,
        sequence=row.sequence,
    )


def trial(row: Any) -> TrialRecord:
    """Read a row of `trials`."""
    return TrialRecord(
        number=row.number,
        arm=row.arm,
        point=row.point,
        seed_index=row.seed_index,
        config=row.config,
        ask=row.ask,
        state=TrialState(row.state),
        reason=row.reason,
        message=row.message,
        since=row.since,
        created_at=row.created_at,
        attempt=row.attempt,
        num_losses=row.num_losses,
        last_step=row.last_step,
        objective=from_column(row.objective, row.objective_kind),
        device_seconds=row.device_seconds,
        executions=tuple(row.executions),
    )


def outcome(row: Any) -> TrialOutcome:
    """Read a row of the columns of `trials` that standings need."""
    return TrialOutcome(
        number=row.number,
        arm=row.arm,
        point=row.point,
        phase=Phase(row.phase),
        config=row.config,
        state=TrialState(row.state),
        objective=from_column(row.objective, row.objective_kind),
    )


def observation(row: Any) -> Observation:
    """Read a row of `observations`."""
    return Observation(
        sequence=row.sequence,
        trial=row.trial,
        step=row.step,
        attempt=row.attempt,
        produced_at=row.produced_at,
        metrics=metrics_from_json(row.metrics),
    )


def event(row: Any) -> Event:
    """Read a row of `events`."""
    return Event(sequence=row.sequence, at=row.at, kind=row.kind, trial=row.trial, body=row.body)
