"""MLflow as a tracker: a parent run per campaign, a child run per trial."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from spectune.service.campaign.model.records import CampaignRecord, Refusal, TrialUpdate
from spectune.service.tracking import links
from spectune.service.tracking.naming import metric_name
from spectune.service.tracking.run_updates import RunUpdate, campaign_news, trial_news
from spectune.service.tracking.served_runs import KnownRun, ServedRuns
from spectune.service.tracking.views import view, view_key

EXPERIMENT = "spectune"

# Of the libraries below MLflow's client; urllib3 warns at each try, and the follower reports an outage itself.
_LEVELS = {"alembic": logging.WARNING, "mlflow": logging.WARNING, "urllib3.connectionpool": logging.ERROR}


class Runs(Protocol):
    """Where runs are written; `ServedRuns` says what each method does."""

    @property
    def may_make_twice(self) -> bool:
        """Return whether a run can be there twice though nothing has failed."""

    def experiment(self, name: str, artifact_location: str | None) -> str:
        """Find or make an experiment; give its id."""

    def holds(self, name: str) -> bool:
        """Return whether there is an experiment of this name."""

    def show(self, experiment_id: str, key: str, view: str) -> None:
        """Keep a view of runs."""

    def find(self, experiment_id: str, campaign_id: str) -> dict[int | None, KnownRun]:
        """Find a campaign's runs, by trial."""

    def write(self, experiment_id: str, news: Sequence[RunUpdate], known: dict[int | None, KnownRun]) -> list[Refusal]:
        """Tell runs what there is to tell, making those that are not there."""


class MlflowTracker:
    """Writes campaigns into an MLflow.

    Args:
        runs: Writes runs.
        address: Where people open MLflow's pages.
        artifact_location: Where the experiment keeps artifacts; None leaves it to the server.
    """

    name = links.MLFLOW

    def __init__(self, runs: Runs, *, address: str, artifact_location: str | None = None) -> None:
        self._runs = runs
        self._address = address
        self._artifact_location = artifact_location
        self._experiment: str | None = None
        self._known: dict[str, dict[int | None, KnownRun]] = {}  # by campaign, of those that were searched
        self._doubtful: set[str] = set()  # campaigns of which a call has failed: something may be there twice

    @classmethod
    def connect(cls, tracking_uri: str, *, address: str, artifact_location: str | None = None) -> Self:
        """Speak to the MLflow behind a tracking address.

        Args:
            tracking_uri: `sqlite:////absolute/path` writes the store directly; `http://...` goes through a server.
            address: Where people open MLflow's pages.
            artifact_location: Where the experiment keeps artifacts; None leaves it to the server.
        """
        for name, level in _LEVELS.items():
            logging.getLogger(name).setLevel(level)
        if tracking_uri.startswith(("sqlite:", "sqlite+")):
            from spectune.service.tracking.stored_runs import StoredRuns  # the database's models take half a second

            return cls(StoredRuns.connect(tracking_uri), address=address, artifact_location=artifact_location)
        return cls(ServedRuns.connect(tracking_uri), address=address, artifact_location=artifact_location)

    def tell(
        self, campaign: CampaignRecord, trials: Sequence[TrialUpdate], summary: Mapping[str, float] | None
    ) -> list[Refusal]:
        """Record what has happened to a campaign and its trials.

        Args:
            campaign: As it is now.
            trials: What has happened to each.
            summary: The campaign's summary metrics; None where it has not moved.

        Returns:
            What MLflow will never take; everything else is there.
        """
        campaign_id = campaign.campaign_id
        try:
            refusals = self._tell(campaign, trials, summary)
        except BaseException:
            self._known.pop(campaign_id, None)
            self._doubtful.add(campaign_id)
            raise
        is_doubtful = campaign_id in self._doubtful or (self._runs.may_make_twice and summary is not None)
        if campaign.state.is_terminal and is_doubtful:
            self._known[campaign_id] = self._runs.find(self.experiment_id(), campaign_id)
            self._doubtful.discard(campaign_id)
        return refusals

    def is_new(self) -> bool:
        """Return whether MLflow has never been told anything: it was made just now, or made again."""
        return not self._runs.holds(EXPERIMENT)

    def experiment_id(self) -> str:
        """Find or make the experiment that holds all campaigns."""
        if self._experiment is None:
            self._experiment = self._runs.experiment(EXPERIMENT, self._artifact_location)
        return self._experiment

    def page(self, campaign: CampaignRecord) -> str:
        """Return the address where a campaign's trials can be looked at; it must have been told of."""
        objective = campaign.objective
        return links.trials_page(
            self.experiment_id(),
            self._runs_of(campaign)[None].run_id,
            metric=metric_name(objective["metric"]),
            ascending=objective["mode"] == "minimize",
            address=self._address,
        )

    def _tell(
        self, campaign: CampaignRecord, trials: Sequence[TrialUpdate], summary: Mapping[str, float] | None
    ) -> list[Refusal]:
        known, experiment_id = self._runs_of(campaign), self.experiment_id()
        refusals: list[Refusal] = []
        if None not in known:  # the trials' runs name it
            refusals += self._runs.write(experiment_id, [campaign_news(campaign, None)], known)
        parent = known[None].run_id
        news = [trial_news(campaign, each, parent_run_id=parent) for each in trials]
        refusals += self._runs.write(experiment_id, news, known) if news else []
        if summary is not None or not known[None].is_described:
            refusals += self._runs.write(experiment_id, [campaign_news(campaign, summary)], known)
            self._runs.show(experiment_id, view_key(campaign), view(campaign, parent))
        return refusals

    def _runs_of(self, campaign: CampaignRecord) -> dict[int | None, KnownRun]:
        if campaign.campaign_id not in self._known:
            self._known[campaign.campaign_id] = self._runs.find(self.experiment_id(), campaign.campaign_id)
        return self._known[campaign.campaign_id]
