"""How records of the ledger become what the API answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spectune.service.api.schemas import (
    Attempt,
    BestSummary,
    Campaign,
    CompletedPoint,
    FrontPoint,
    Progress,
    Standing,
    Trial,
    TrialReport,
)
from spectune.service.campaign.analysis.best import BestPoint, campaign_ranking
from spectune.service.campaign.analysis.leaderboard import ArmStanding, PointStanding
from spectune.service.campaign.analysis.pareto import ParetoPoint
from spectune.service.campaign.analysis.summary import Summary
from spectune.service.campaign.model.lifecycle import CampaignState
from spectune.service.campaign.model.numbers import metrics_to_json, to_json
from spectune.service.campaign.model.progress import campaign_progress
from spectune.service.campaign.model.records import CampaignRecord, Observation, TrialRecord
from spectune.service.campaign.model.submission import AttemptRecord, Submission

_LINKS = ("trials", "events", "leaderboard", "best", "report", "bundle", "attempts", "logs", "set-aside", "tracking")
_WAITING = (CampaignState.QUEUED, CampaignState.RUNNING, CampaignState.PAUSING, CampaignState.CANCELLING)


def campaign_document(submission: Submission, summary: Summary, *, num_set_aside: int) -> Campaign:
    """Describe a campaign."""
    campaign = submission.campaign
    base = f"/v1/campaigns/{campaign.campaign_id}"
    ranking = campaign_ranking(campaign, summary.standings, summary.tallies)
    names = ("name", "state", "reason", "message", "since", "created_at", "attempt")
    return Campaign(
        **{name: getattr(campaign, name) for name in names},
        id=campaign.campaign_id,
        owner=submission.owner,
        priority=submission.priority,
        queue_position=submission.queue_position if campaign.state is CampaignState.QUEUED else None,
        waiting_for=submission.waiting_for if campaign.state in _WAITING else "",
        num_set_aside=num_set_aside,
        progress=progress_document(campaign, summary),
        best=None if ranking.best is None else best_document(campaign, ranking.best),
        why_no_best=ranking.why_none,
        links={name: f"{base}/{name}" for name in _LINKS},
        specification=dict(campaign.specification),
    )


def progress_document(campaign: CampaignRecord, summary: Summary) -> Progress:
    """Describe how far a campaign is."""
    progress = campaign_progress(campaign, summary.tallies)
    return Progress(
        num_trials=dict(progress.num_trials),
        num_trials_planned=progress.num_planned,
        until_step=campaign.specification["task"]["steps"],
        eta_seconds=progress.seconds_left,
        text=progress.text,
    )


def best_document(campaign: CampaignRecord, best: BestPoint) -> BestSummary:
    """Describe a campaign's best point."""
    return BestSummary.model_validate(best.document(campaign.specification["arms"][best.arm]["name"]))


def trial_document(trial: TrialRecord, arms: list[str], *, campaign_id: str) -> Trial:
    """Describe a trial."""
    base = f"/v1/campaigns/{campaign_id}/trials/{trial.number}"
    return Trial(
        number=trial.number,
        arm=arms[trial.arm],
        phase=trial.phase,
        point=trial.point,
        seed_index=trial.seed_index,
        config=dict(trial.config),
        state=trial.state,
        reason=trial.reason,
        message=trial.message,
        since=trial.since,
        last_step=trial.last_step,
        objective=None if trial.objective is None else to_json(trial.objective),
        device_seconds=trial.device_seconds,
        executions=[dict(each) for each in trial.executions],
        links={name: f"{base}/{name}" for name in ("metrics", "tracking")},
    )


def report_document(observation: Observation) -> TrialReport:
    """Describe an observation."""
    return TrialReport(
        step=observation.step,
        attempt=observation.attempt,
        produced_at=observation.produced_at,
        metrics=metrics_to_json(observation.metrics),
    )


def attempt_document(attempt: AttemptRecord) -> Attempt:
    """Describe an attempt."""
    return Attempt.model_validate(attempt, from_attributes=True)


def standing_document(arm: Mapping[str, Any], standing: ArmStanding, *, limit: int) -> Standing:
    """Describe how an arm stands."""
    return Standing(
        arm=arm["name"],
        optimizer=arm["optimizer"],
        num_trials={state: count for state, count in standing.num_trials.items() if count},
        points=[point_document(arm, point) for point in standing.ranked[:limit]],
        finals=[point_document(arm, point) for point in standing.finals[:limit]],
    )


def point_document(arm: Mapping[str, Any], point: PointStanding) -> CompletedPoint:
    """Describe a point that has completed."""
    return CompletedPoint(
        arm=arm["name"],
        optimizer=arm["optimizer"],
        point=point.point,
        trials=list(point.trials),
        value=to_json(point.value),
        half_width=None if point.half_width is None else to_json(point.half_width),
        spread=None if point.spread is None else to_json(point.spread),
        config={**arm["fixed"], **point.config},
    )


def front_document(arm: Mapping[str, Any], point: ParetoPoint, config: Mapping[str, Any]) -> FrontPoint:
    """Describe a point that no other dominates."""
    return FrontPoint(
        arm=arm["name"],
        optimizer=arm["optimizer"],
        point=point.point,
        costs=metrics_to_json(point.costs),
        config={**arm["fixed"], **config},
    )
