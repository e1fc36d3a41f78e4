"""What MLflow shall hold of a campaign and of its trials, as plain values: which run, with what in it.

A campaign is a run and each of its trials a child of it, told apart by tags:

    campaign    the campaign's id                 kind    campaign | trial
    trial       its number, of a child alone

A run's identity and parameters never change. Metrics are points at the time of their production, so that telling one
again adds nothing. Where a run stands (status, end, tags) is told anew whenever it has changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, assert_never

from spectune.service.campaign.model import naming
from spectune.service.campaign.model.lifecycle import CampaignState, TrialState
from spectune.service.campaign.model.records import CampaignRecord, Observation, TrialRecord, TrialUpdate
from spectune.service.tracking.naming import LOG_LR, metric_name
from spectune.service.tracking.views import COLOUR_TAG, colour

PARENT_RUN_TAG: Final = "mlflow.parentRunId"
_MAX_VALUE: Final = 5000  # characters, within every limit of MLflow's


class MetricPoint(NamedTuple):
    """A value of a metric; NaN and infinities are values."""

    name: str
    value: float
    timestamp: int
    step: int


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        status: MLflow's word for it.
        ended_at: Milliseconds since the epoch; None while it goes on.
        tags: The ledger's own words.
    """

    status: str
    ended_at: int | None
    tags: Mapping[str, str]


@dataclass(frozen=True)
class RunUpdate:
    """What there is to tell of a run.

    Attributes:
        trial: Its number; None of the campaign's own run.
        name: What MLflow lists it as.
        created_at: Milliseconds since the epoch.
        identity: Tags that it is made with and found again by.
        params: What never changes.
        tags: Tags that never change.
        points: Values of metrics.
        standing: None where it has not changed.
    """

    trial: int | None
    name: str
    created_at: int
    identity: Mapping[str, str]
    params: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)
    points: Sequence[MetricPoint] = ()
    standing: RunStatus | None = None


def campaign_news(campaign: CampaignRecord, summary: Mapping[str, float] | None) -> RunUpdate:
    """Describe a campaign's own run.

    Args:
        campaign: As it is now.
        summary: Its summary metrics; None where it has not moved.
    """
    specification = campaign.specification
    params = {"task": specification["task"]["name"], "optimizers": _optimizers(specification["arms"])}
    params |= {f"search/{name}": value for name, value in specification["search"].items()}
    params |= {f"task/{name}": value for name, value in specification["task"].items() if name != "name"}
    return RunUpdate(
        trial=None,
        name=campaign.campaign_id,
        created_at=campaign.created_at,
        identity={"campaign": campaign.campaign_id, "kind": "campaign"},
        params=_texts(params),
        tags=_texts(specification["tags"]),
        points=[MetricPoint(name, value, campaign.since, 0) for name, value in (summary or {}).items()],
        standing=None if summary is None else _campaign_standing(campaign),
    )


def trial_news(campaign: CampaignRecord, news: TrialUpdate, *, parent_run_id: str) -> RunUpdate:
    """Describe a trial's run."""
    trial, arm = news.record, campaign.specification["arms"][news.record.arm]
    place = {"trial": str(trial.number), "arm": arm["name"], "point": str(trial.point), "phase": str(trial.phase)}
    place[COLOUR_TAG] = colour(trial.arm, trial.point)
    params = {"optimizer": arm["optimizer"], "task": campaign.specification["task"]["name"], "seed": trial.seed_index}
    return RunUpdate(
        trial=trial.number,
        name=naming.run_name(arm["name"], trial.number),
        created_at=trial.created_at,
        identity={"campaign": campaign.campaign_id, "kind": "trial", **place, PARENT_RUN_TAG: parent_run_id},
        params=_texts(params | dict(trial.config)),
        points=[*_reported(campaign, news.observations), *_summary(campaign, trial, news.history)],
        standing=_trial_standing(trial, news.history) if news.has_moved else None,
    )


def _reported(campaign: CampaignRecord, observations: Sequence[Observation]) -> list[MetricPoint]:
    """Return the points of reports, the objective first, for MLflow compares runs by the metric that it has first."""
    objective = campaign.objective["metric"]
    return [
        MetricPoint(metric_name(name), value, each.produced_at, each.step)
        for each in observations
        for name, value in sorted(each.metrics.items(), key=lambda metric: metric[0] != objective)
    ]


def _summary(campaign: CampaignRecord, trial: TrialRecord, history: Sequence[Observation]) -> list[MetricPoint]:
    """Summarise a trial that has ended, so that the table of runs says at once how it went.

    An infinite best would leave a chart of all trials nothing but one corner; the last objective may be infinite.
    """
    if not history or trial.objective is None:
        return []
    metric, mode = campaign.objective["metric"], campaign.objective["mode"]
    reported = [each.metrics[metric] for each in history if metric in each.metrics]
    numbers = [value for value in reported if math.isfinite(value)]
    summary = {"best": (min if mode == "minimize" else max)(numbers)} if numbers else {}
    summary |= {"final": trial.objective, "steps": float(trial.last_step), "device_seconds": trial.device_seconds}
    lr = trial.config.get("lr")
    if isinstance(lr, float | int) and lr > 0:
        summary[LOG_LR] = math.log10(lr)
    return [MetricPoint(name, value, trial.since, trial.last_step) for name, value in summary.items()]


def _trial_standing(trial: TrialRecord, history: Sequence[Observation]) -> RunStatus:
    tags = {"state": trial.state, "reason": trial.reason, "message": trial.message, "attempt": trial.attempt}
    valid = [each.metrics["timing_valid"] == 1.0 for each in history if "timing_valid" in each.metrics]
    if valid:
        tags["timing_valid"] = "true" if all(valid) else "false"
    return RunStatus(_trial_status(trial.state), trial.since if trial.state.is_terminal else None, _texts(tags))


def _campaign_standing(campaign: CampaignRecord) -> RunStatus:
    tags = {"state": campaign.state, "reason": campaign.reason, "message": campaign.message}
    ended_at = campaign.since if campaign.state.is_terminal else None
    return RunStatus(_campaign_status(campaign.state), ended_at, _texts(tags))


def _trial_status(state: TrialState) -> str:
    match state:
        case TrialState.PENDING:
            return "SCHEDULED"
        case TrialState.RUNNING:
            return "RUNNING"
        case TrialState.COMPLETED | TrialState.STOPPED:
            return "FINISHED"
        case TrialState.DIVERGED | TrialState.FAILED | TrialState.LOST:
            return "FAILED"
        case TrialState.CANCELLED:
            return "KILLED"
        case _:
            assert_never(state)


def _campaign_status(state: CampaignState) -> str:
    match state:
        case CampaignState.QUEUED | CampaignState.STARTING | CampaignState.PAUSED:
            return "SCHEDULED"
        case CampaignState.RUNNING | CampaignState.PAUSING | CampaignState.CANCELLING:
            return "RUNNING"
        case CampaignState.SUCCEEDED:
            return "FINISHED"
        case CampaignState.FAILED:
            return "FAILED"
        case CampaignState.CANCELLED:
            return "KILLED"
        case _:
            assert_never(state)


def _optimizers(arms: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(arm["optimizer"] for arm in arms)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    """Write a value; of one that is too long for MLflow, as a traceback may be, its end."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _MAX_VALUE else "…" + text[1 - _MAX_VALUE :]
