"""What the API answers, as pydantic models. Times are milliseconds since the epoch."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from spectune.service.api.examples import CAMPAIGN
from spectune.service.campaign.model.lifecycle import CampaignState, TrialState
from spectune.service.campaign.model.records import Phase

Number = float | str
_NUMBER = "a number, or one of the strings NaN, Infinity and -Infinity"


class Progress(BaseModel):
    """How far a campaign is."""

    num_trials: dict[TrialState, int] = Field(description="states that no trial is in are left out")
    num_trials_planned: int = Field(description="of search, finals and audit, at most")
    until_step: int = Field(description="the step at which a trial is done")
    eta_seconds: float | None = Field(
        description="a guess at what is left, from the steps so far; null while nothing runs or nothing is known"
    )
    text: str = Field(description="the trials by state out of those that are planned", examples=["32 completed of 64"])


_HALF_WIDTH = "half the width of the 95 % interval of the mean, by Student's t; null for a single seed"
_WHY_NONE = "why no point may be named the best; empty if one is"


class BestSummary(BaseModel):
    """A campaign's best point, as `/best` names it."""

    arm: str
    point: int
    trials: list[int]
    value: Number
    half_width: Number | None = Field(description=_HALF_WIDTH)
    phase: Phase = Field(description="where its value comes from: the finals, if every arm has one there")
    how: str = Field(description="how its value was obtained", examples=["mean of finals ± 95 % interval, 4 seeds"])


class Campaign(BaseModel):
    """A campaign."""

    model_config = ConfigDict(json_schema_extra={"examples": [CAMPAIGN]})

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
    num_set_aside: int = Field(description="records of its drivers that the ledger cannot hold; see `set-aside`")
    progress: Progress
    best: BestSummary | None = Field(description="null if no point may be named; `why_no_best` says why")
    why_no_best: str = Field(description=_WHY_NONE)
    links: dict[str, str]
    specification: dict[str, Any]


class CampaignPage(BaseModel):
    """Some campaigns, and the cursor of the next ones."""

    campaigns: list[Campaign]
    next_cursor: str | None


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
    executions: list[dict[str, Any]] = Field(description="on which processors or GPUs it was computed, each once")
    links: dict[str, str]


class TrialPage(BaseModel):
    """Some trials, and the cursor of the next ones."""

    trials: list[Trial]
    next_cursor: str | None


class SetAside(BaseModel):
    """A record of a driver that the ledger cannot hold."""

    trial: int | None = Field(description="null if it names no trial")
    content: str
    reason: str


class SetAsideList(BaseModel):
    """All records of a campaign that the ledger cannot hold."""

    records: list[SetAside]


_PAGE = "an address of MLflow's; null where it does not hold the runs yet"
_PROBLEM = "why MLflow cannot be asked just now; null where it can"


class CampaignTracking(BaseModel):
    """Where a campaign can be looked at in MLflow."""

    run: str | None = Field(default=None, description=_PAGE)
    trials: str | None = Field(default=None, description=_PAGE)
    best: str | None = Field(default=None, description=_PAGE)
    problem: str | None = Field(default=None, description=_PROBLEM)
    num_untold: int = Field(default=0, description="changes of this campaign that MLflow does not hold yet")


class TrialTracking(BaseModel):
    """Where a trial can be looked at in MLflow."""

    run: str | None = Field(default=None, description=_PAGE)
    problem: str | None = Field(default=None, description=_PROBLEM)


class TrialReport(BaseModel):
    """What a trial reported at a step."""

    step: int
    attempt: int
    produced_at: int
    metrics: dict[str, Number] = Field(description=_NUMBER)


class Curves(BaseModel):
    """A trial's reports by step."""

    trial: int
    observations: list[TrialReport]


class CompletedPoint(BaseModel):
    """A point that has completed."""

    arm: str
    optimizer: str
    point: int
    trials: list[int]
    value: Number
    spread: Number | None = Field(description="sample standard deviation over seeds; null for a single one")
    half_width: Number | None = Field(description=_HALF_WIDTH)
    config: dict[str, Any]


class Standing(BaseModel):
    """How an arm stands, its best points first."""

    arm: str
    optimizer: str
    num_trials: dict[TrialState, int]
    points: list[CompletedPoint]
    finals: list[CompletedPoint] = Field(description="points of the finals, with seeds that the search has not seen")


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
    lacking: str = Field(default="", description="what arms lack that did not get their share; then none is the best")
    best: CompletedPoint | None = Field(description="null if no point may be named; `why_no_best` says why")
    why_no_best: str = Field(description=_WHY_NONE)
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
