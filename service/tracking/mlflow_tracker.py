"""MLflow as a tracker: a parent run per campaign, a child run per trial, written through `MlflowClient` alone.

MLflow drops a metric row that it holds already (run, key, timestamp, step, value), so sending one again with the time
of its production adds nothing. Creating a run is not idempotent: before one is created it is looked for by its tags,
with one search per campaign.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, assert_never

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from service.campaign import naming
from service.campaign.lifecycle import CampaignState, TrialState
from service.campaign.records import CampaignRecord, Observation, TrialRecord
from service.tracking import links

EXPERIMENT = "spectune"
_Trial = tuple[str, int]  # campaign and number
MAX_METRICS_PER_BATCH = 1000  # mlflow.utils.validation
_PAGE = 1000

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow").setLevel(logging.WARNING)


class MlflowTracker:
    """Writes campaigns into an MLflow.

    Args:
        client: Speaks to it.
        address: Where people open MLflow's pages.
        artifact_location: Where the experiment keeps artifacts; None leaves it to the server.
    """

    name = links.MLFLOW

    def __init__(self, client: MlflowClient, *, address: str, artifact_location: str | None = None) -> None:
        self._client = client
        self._address = address
        self._artifact_location = artifact_location
        self._experiment: str | None = None
        self._parents: dict[str, str] = {}  # run id by campaign
        self._children: dict[_Trial, str] = {}
        self._described: set[str] = set()  # run ids whose parameters are written
        self._searched: set[str] = set()  # campaigns all of whose runs are known

    @classmethod
    def connect(cls, tracking_uri: str, *, address: str, artifact_location: str | None = None) -> Self:
        """Speak to the MLflow behind a tracking address.

        Args:
            tracking_uri: `sqlite:////absolute/path` writes the store directly; `http://...` goes through a server.
            address: Where people open MLflow's pages.
            artifact_location: Where the experiment keeps artifacts; None leaves it to the server.
        """
        return cls(MlflowClient(tracking_uri=tracking_uri), address=address, artifact_location=artifact_location)

    def open_campaign(self, campaign: CampaignRecord) -> None:
        """Make sure that the campaign has its parent run."""
        self._search(campaign.campaign_id)
        if campaign.campaign_id not in self._parents:
            tags = {"campaign": campaign.campaign_id, "kind": "campaign"}
            run_id = self._create(campaign, campaign.campaign_id, campaign.created_at, tags)
            self._parents[campaign.campaign_id] = run_id
        specification = campaign.specification
        params = {"task": specification["task"]["name"], "optimizers": _names(specification["arms"])}
        params |= {f"search/{name}": value for name, value in specification["search"].items()}
        params |= {f"task/{name}": value for name, value in specification["task"].items() if name != "name"}
        self._describe(self._parents[campaign.campaign_id], params, specification["tags"])

    def open_trial(self, campaign: CampaignRecord, trial: TrialRecord) -> None:
        """Make sure that a trial has its run, with its parameters."""
        self._search(campaign.campaign_id)
        arm, key = campaign.specification["arms"][trial.arm], (campaign.campaign_id, trial.number)
        if key not in self._children:
            place = {"trial": str(trial.number), "arm": arm["name"], "point": str(trial.point)}
            tags = {"campaign": campaign.campaign_id, "kind": "trial", **place}
            tags[MLFLOW_PARENT_RUN_ID] = self._parents[campaign.campaign_id]
            name = naming.run_name(arm["name"], trial.number)
            self._children[key] = self._create(campaign, name, trial.created_at, tags)
        params = {"optimizer": arm["optimizer"], "task": campaign.specification["task"]["name"]}
        self._describe(self._children[key], params | {"seed": trial.seed_index} | dict(trial.config), {})

    def log(self, campaign: CampaignRecord, trial: TrialRecord, observations: Sequence[Observation]) -> None:
        """Add a trial's step metrics."""
        run_id = self._children[campaign.campaign_id, trial.number]
        metrics = [
            Metric(name, value, observation.produced_at, observation.step)
            for observation in observations
            for name, value in observation.metrics.items()
        ]
        for start in range(0, len(metrics), MAX_METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS_PER_BATCH])

    def update_trial(self, campaign: CampaignRecord, trial: TrialRecord) -> None:
        """Say where a trial stands: its state, why, and its terminal status once it has ended."""
        run_id = self._children[campaign.campaign_id, trial.number]
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
        objective = campaign.objective
        return links.trials_page(
            self.experiment_id(),
            self._parents[campaign.campaign_id],
            metric=objective["metric"],
            ascending=objective["mode"] == "minimize",
            address=self._address,
        )

    def _search(self, campaign_id: str) -> None:
        """Find the runs that a campaign has already, unless they are known."""
        if campaign_id in self._searched:
            return
        for run in self._runs(f"tags.campaign = '{campaign_id}'"):
            if MLFLOW_PARENT_RUN_ID in run.data.tags:
                self._children[campaign_id, int(run.data.tags["trial"])] = run.info.run_id
            else:
                self._parents[campaign_id] = run.info.run_id
        self._searched.add(campaign_id)

    def _create(self, campaign: CampaignRecord, name: str, start_time: int, tags: dict[str, str]) -> str:
        """Create a run; where that fails it may have been created all the same, so it is looked for the next time."""
        experiment_id = self.experiment_id()
        self._searched.discard(campaign.campaign_id)
        run = self._client.create_run(experiment_id, start_time=start_time, run_name=name, tags=tags)
        self._searched.add(campaign.campaign_id)
        return str(run.info.run_id)

    def _describe(self, run_id: str, params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        """Write a run's parameters and tags, once; a run that was found may lack them."""
        if run_id not in self._described:
            self._client.log_batch(run_id, params=_params(params), tags=_tags(tags))
            self._described.add(run_id)

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
