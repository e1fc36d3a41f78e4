"""MLflow as a tracker: a parent run per campaign, a child run per trial, written through `MlflowClient` alone.

MLflow drops a metric row that it holds already (run, key, timestamp, step, value), so sending one again with the time
of its production adds nothing. Creating a run is not idempotent: before one is created it is looked for by its tags,
with one search per campaign.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from service.campaign import naming
from service.campaign.lifecycle import CampaignState, TrialState
from service.campaign.records import CampaignRecord, Observation, TrialRecord
from service.tracking import links

EXPERIMENT = "spectune"
MAX_METRICS_PER_BATCH = 1000  # mlflow.utils.validation
_PAGE = 1000

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow").setLevel(logging.WARNING)


class MlflowTracker:
    """Writes campaigns into the MLflow behind a tracking address.

    Args:
        tracking_uri: `sqlite:////absolute/path` writes the store directly; `http://...` goes through a server.
        address: Where people open MLflow's pages.
        artifact_location: Where the experiment keeps artifacts; None leaves it to the server.
    """

    name = "mlflow"

    def __init__(self, tracking_uri: str, *, address: str, artifact_location: str | None = None) -> None:
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._address = address
        self._artifact_location = artifact_location
        self._experiment: str | None = None
        self._parents: dict[str, str] = {}  # run id by campaign
        self._children: dict[int, str] = {}  # run id by trial

    def open_campaign(self, campaign: CampaignRecord) -> None:
        """Make sure that the campaign has its parent run."""
        if campaign.campaign_id in self._parents:
            return
        self._remember_runs(campaign.campaign_id)
        if campaign.campaign_id in self._parents:
            return
        specification = campaign.specification
        run = self._client.create_run(
            self.experiment_id(),
            start_time=campaign.created_at,
            run_name=campaign.campaign_id,
            tags={"campaign": campaign.campaign_id, "kind": "campaign"},
        )
        params = {"task": specification["task"]["name"], "optimizers": _names(specification["arms"])}
        params |= {f"search/{name}": value for name, value in specification["search"].items()}
        params |= {f"task/{name}": value for name, value in specification["task"].items() if name != "name"}
        self._client.log_batch(run.info.run_id, params=_params(params), tags=_tags(specification["tags"]))
        self._parents[campaign.campaign_id] = run.info.run_id

    def open_trial(self, campaign: CampaignRecord, trial: TrialRecord) -> None:
        """Make sure that a trial has its run, with its parameters."""
        if trial.number in self._children:
            return
        arm = campaign.specification["arms"][trial.arm]
        run = self._client.create_run(
            self.experiment_id(),
            start_time=trial.created_at,
            run_name=naming.run_name(arm["name"], trial.number),
            tags={
                MLFLOW_PARENT_RUN_ID: self._parents[campaign.campaign_id],
                "campaign": campaign.campaign_id,
                "kind": "trial",
                "trial": str(trial.number),
                "arm": arm["name"],
                "point": str(trial.point),
            },
        )
        params = {"optimizer": arm["optimizer"], "task": campaign.specification["task"]["name"]}
        params |= {"seed": trial.seed_index} | dict(trial.config)
        self._client.log_batch(run.info.run_id, params=_params(params))
        self._children[trial.number] = run.info.run_id

    def log(self, trial: int, observations: Sequence[Observation]) -> None:
        """Add a trial's step metrics."""
        metrics = [
            Metric(name, value, observation.produced_at, observation.step)
            for observation in observations
            for name, value in observation.metrics.items()
        ]
        for start in range(0, len(metrics), MAX_METRICS_PER_BATCH):
            self._client.log_batch(self._children[trial], metrics=metrics[start : start + MAX_METRICS_PER_BATCH])

    def update_trial(self, campaign: CampaignRecord, trial: TrialRecord) -> None:
        """Say where a trial stands: its state, why, and its terminal status once it has ended."""
        run_id = self._children[trial.number]
        tags = {"state": trial.state, "reason": trial.reason, "message": trial.message, "attempt": trial.attempt}
        self._client.log_batch(run_id, tags=_tags(tags))
        self._set_status(run_id, _trial_status(trial.state), trial.since if trial.state.is_terminal else None)

    def update_campaign(self, campaign: CampaignRecord, summary: Mapping[str, float]) -> None:
        """Say where a campaign stands, with its summary metrics."""
        run_id = self._parents[campaign.campaign_id]
        metrics = [Metric(name, value, campaign.since, 0) for name, value in summary.items()]
        tags = {"state": campaign.state, "reason": campaign.reason, "message": campaign.message}
        self._client.log_batch(run_id, metrics=metrics, tags=_tags(tags))
        self._set_status(
            run_id, _campaign_status(campaign.state), campaign.since if campaign.state.is_terminal else None
        )

    def experiment_id(self) -> str:
        """Find or make the experiment that holds all campaigns."""
        if self._experiment is None:
            found = self._client.get_experiment_by_name(EXPERIMENT)
            if found is not None:
                self._experiment = str(found.experiment_id)
            else:
                self._experiment = str(self._client.create_experiment(EXPERIMENT, self._artifact_location))
        return self._experiment

    def page(self, campaign: CampaignRecord) -> str:
        """Give the address where a campaign's trials can be looked at; the campaign must be open."""
        objective = campaign.specification["objective"]
        return links.trials_page(
            self.experiment_id(),
            self._parents[campaign.campaign_id],
            metric=objective["metric"],
            ascending=objective["mode"] == "minimize",
            address=self._address,
        )

    def _remember_runs(self, campaign_id: str) -> None:
        """Find the runs that a campaign has already."""
        for run in self._runs(f"tags.campaign = '{campaign_id}'"):
            if run.data.tags["kind"] == "campaign":
                self._parents[campaign_id] = run.info.run_id
            else:
                self._children[int(run.data.tags["trial"])] = run.info.run_id

    def _runs(self, filter_string: str) -> Iterator[Run]:
        token: str | None = None
        while True:
            experiments = [self.experiment_id()]
            page = self._client.search_runs(experiments, filter_string, max_results=_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _set_status(self, run_id: str, status: str, ended_at: int | None) -> None:
        if ended_at is None:
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status=status, end_time=ended_at)


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


def _names(arms: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(arm["optimizer"] for arm in arms)


def _params(values: Mapping[str, Any]) -> list[Param]:
    return [Param(name, value if isinstance(value, str) else json.dumps(value)) for name, value in values.items()]


def _tags(values: Mapping[str, Any]) -> list[RunTag]:
    return [RunTag(name, str(value)) for name, value in values.items()]
