"""What the API answers, as pydantic models, and how records become them. Times are milliseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from service.campaign.leaderboard import ArmStanding, PointStanding
from service.campaign.lifecycle import CampaignState, TrialState
from service.campaign.pareto import ParetoPoint
from service.campaign.records import Observation, Phase, TrialRecord
from service.campaign.specification import Specification
from service.campaign.submission import AttemptRecord, Submission
from service.ledger.numbers import metrics_to_json, to_json

Number = float | str
_NUMBER = "a number, or one of the strings NaN, Infinity and -Infinity"


class Progress(BaseModel):
    """How far a campaign is."""

    num_trials: dict[TrialState, int] = Field(description="states that no trial is in are left out")
    num_trials_planned: int


class Campaign(BaseModel):
    """A campaign."""

    id: str
    name: str
    state: CampaignState
    reason: str
    message: str
    since: int
    owner: str
    priority: int
    created_at: int
    attempt: int
    queue_position: int | None = Field(description="from 1; null where it waits for no other campaign")
    waiting_for: str
    progress: Progress
    links: dict[str, str]
    specification: dict[str, Any]


class CampaignPage(BaseModel):
    """Some campaigns, and the cursor of the next ones."""

    campaigns: list[Campaign]
    next_cursor: str | None


class Preview(BaseModel):
    """What a campaign would do; nothing is stored."""

    specification: dict[str, Any]
    warnings: list[str]
    num_points: int
    num_trials: int
    rungs: list[int]
    report_steps: list[int]
    most_steps: int = Field(description="steps of all trials if none is stopped early")
    num_cpus: int


class Trial(BaseModel):
    """One trial."""

    number: int
    arm: str
    phase: Phase = Field(description="what it is for: the search, the finals, or the audit of a trial that was stopped")
    point: int
    seed_index: int
    config: dict[str, Any]
    state: TrialState
    reason: str
    message: str
    since: int
    last_step: int
    objective: Number | None = Field(description=_NUMBER + "; null before the first observation")
    device_seconds: float
    links: dict[str, str]


class TrialPage(BaseModel):
    """Some trials, and the cursor of the next ones."""

    trials: list[Trial]
    next_cursor: str | None


_PAGE = "an address of MLflow's; null where it does not hold the runs yet"
_PROBLEM = "why MLflow cannot be asked just now; null where it can"


class CampaignTracking(BaseModel):
    """Where a campaign can be looked at in MLflow."""

    run: str | None = Field(default=None, description=_PAGE)
    trials: str | None = Field(default=None, description=_PAGE)
    best: str | None = Field(default=None, description=_PAGE)
    problem: str | None = Field(default=None, description=_PROBLEM)


class TrialTracking(BaseModel):
    """Where a trial can be looked at in MLflow."""

    run: str | None = Field(default=None, description=_PAGE)
    problem: str | None = Field(default=None, description=_PROBLEM)


class Report(BaseModel):
    """What a trial reported at a step."""

    step: int
    attempt: int
    produced_at: int
    metrics: dict[str, Number] = Field(description=_NUMBER)


class Curves(BaseModel):
    """A trial's reports by step."""

    trial: int
    observations: list[Report]


class Point(BaseModel):
    """A point that has completed."""

    arm: str
    optimizer: str
    point: int
    trials: list[int]
    value: Number
    spread: Number | None = Field(description="sample standard deviation over seeds; null for a single one")
    config: dict[str, Any]


class Standing(BaseModel):
    """How an arm stands, its best points first."""

    arm: str
    optimizer: str
    num_trials: dict[TrialState, int]
    points: list[Point]
    finals: list[Point] = Field(description="points of the finals, with seeds that the search has not seen")


class Leaderboard(BaseModel):
    """Standings within each arm."""

    metric: str
    mode: str
    at_step: int
    how: str
    arms: list[Standing]


class FrontPoint(BaseModel):
    """A point that no other of the campaign dominates."""

    arm: str
    optimizer: str
    point: int
    costs: dict[str, Number] = Field(description="what it costs, by metric: " + _NUMBER)
    config: dict[str, Any]


class Best(BaseModel):
    """The best completed point."""

    metric: str
    mode: str
    how: str
    phase: Phase = Field(description="where its value comes from: the finals, if every arm has one there")
    best: Point | None = Field(description="null where no point has completed, and with two objectives")
    front: list[FrontPoint] = Field(description="with two objectives, the points that no other dominates")


class Attempt(BaseModel):
    """One launch of a campaign's driver."""

    number: int
    started_at: int
    claimed_at: int | None
    heartbeat_at: int | None
    ended_at: int | None
    exit_code: int | None


class AttemptList(BaseModel):
    """A campaign's attempts."""

    attempts: list[Attempt]


class Catalogue(BaseModel):
    """What can be named, with a JSON Schema of every option."""

    items: dict[str, Any]


class Health(BaseModel):
    """How the service is."""

    status: str = Field(examples=["ok", "degraded"])
    degraded: dict[str, str] = Field(default={}, description="what does not work just now, and why")


def campaign_document(submission: Submission, num_trials: Mapping[TrialState, int]) -> Campaign:
    """Describe a campaign."""
    campaign = submission.campaign
    search, base = campaign.specification["search"], f"/v1/campaigns/{campaign.campaign_id}"
    planned = len(campaign.specification["arms"]) * search["points"] * search["seeds"]
    return Campaign(
        id=campaign.campaign_id,
        name=campaign.name,
        state=campaign.state,
        reason=campaign.reason,
        message=campaign.message,
        since=campaign.since,
        owner=submission.owner,
        priority=submission.priority,
        created_at=campaign.created_at,
        attempt=campaign.attempt,
        queue_position=submission.queue_position if campaign.state is CampaignState.QUEUED else None,
        waiting_for=submission.waiting_for if campaign.state in _WAITING else "",
        progress=Progress(num_trials=dict(num_trials), num_trials_planned=planned),
        links={name: f"{base}/{name}" for name in _LINKS},
        specification=dict(campaign.specification),
    )


_LINKS = ("trials", "events", "leaderboard", "best", "report", "attempts", "logs", "tracking")
_WAITING = (CampaignState.QUEUED, CampaignState.PAUSING, CampaignState.CANCELLING)


def preview_document(specification: Specification) -> Preview:
    """Describe what a specification would do."""
    search, resources = specification.search, specification.resources
    num_points = len(specification.arms) * search.points
    return Preview(
        specification=specification.document(),
        warnings=[f"{warning.pointer}: {warning.message}" for warning in specification.warnings()],
        num_points=num_points,
        num_trials=num_points * search.seeds,
        rungs=list(specification.rungs()),
        report_steps=list(specification.report_steps()),
        most_steps=num_points * search.seeds * specification.task.steps,
        num_cpus=resources.workers * resources.cpus,
    )


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
        links={name: f"{base}/{name}" for name in ("metrics", "tracking")},
    )


def report_document(observation: Observation) -> Report:
    """Describe an observation."""
    return Report(
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


def point_document(arm: Mapping[str, Any], point: PointStanding) -> Point:
    """Describe a point that has completed."""
    return Point(
        arm=arm["name"],
        optimizer=arm["optimizer"],
        point=point.point,
        trials=list(point.trials),
        value=to_json(point.value),
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
