"""Where a campaign and its trials can be looked at in MLflow: finds their runs by their tags, and writes nothing.

A run's id is MLflow's own, and another one after `spectune sync --rebuild`, so it is asked for rather than kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from spectune.service.campaign.model.records import CampaignRecord
from spectune.service.errors import TrackingError
from spectune.service.ports import CampaignPages
from spectune.service.tracking import links
from spectune.service.tracking.health import problem_with
from spectune.service.tracking.mlflow_tracker import EXPERIMENT
from spectune.service.tracking.naming import metric_name
from spectune.service.tracking.store_file import make_whole
from spectune.service.tracking.views import VIEW_TAG, view_key


@dataclass(frozen=True)
class MlflowPages:
    """Gives addresses of pages in an MLflow.

    Args:
        client: Speaks to it.
        address: Where people open its pages.
    """

    client: MlflowClient
    address: str

    @classmethod
    def connect(cls, tracking_uri: str, *, address: str) -> Self:
        """Speak to the MLflow behind a tracking address.

        Raises:
            TrackingError: It is a store that cannot be opened just now.
        """
        make_whole(tracking_uri)
        return cls(MlflowClient(tracking_uri=tracking_uri), address)

    def of_campaign(self, campaign: CampaignRecord) -> CampaignPages:
        """Return a campaign's pages; each is None where MLflow does not hold the runs yet.

        Raises:
            TrackingError: MLflow cannot be asked.
        """
        with self._asking() as experiment:
            return CampaignPages() if experiment is None else self.in_experiment(experiment, campaign)

    def of_trial(self, campaign: CampaignRecord, number: int) -> str | None:
        """Return the page of a trial's run; None where MLflow does not hold it yet.

        Raises:
            TrackingError: MLflow cannot be asked.
        """
        with self._asking() as experiment:
            if experiment is None:
                return None
            experiment_id = str(experiment.experiment_id)
            found = self._find(experiment_id, f"{_runs_of(campaign)} and tags.trial = '{number}'", most=1)
            return links.run_page(experiment_id, found[0], address=self.address) if found else None

    def in_experiment(self, experiment: Experiment, campaign: CampaignRecord) -> CampaignPages:
        """Return a campaign's pages, where the experiment that holds all campaigns is known.

        Raises:
            MlflowException: MLflow cannot be asked.
        """
        experiment_id = str(experiment.experiment_id)
        parents = self._find(experiment_id, f"{_runs_of(campaign)} and tags.kind = 'campaign'", most=1)
        if not parents:
            return CampaignPages()
        metric, ascending = metric_name(campaign.objective["metric"]), campaign.objective["mode"] == "minimize"
        best = self._find(
            experiment_id,
            f"{_runs_of(campaign)} and tags.state = 'COMPLETED' and tags.phase = 'search'",
            most=links.MOST_COMPARED,
            order=f"metrics.`{metric}` {'ASC' if ascending else 'DESC'}",
        )
        if VIEW_TAG + (key := view_key(campaign)) in experiment.tags:
            trials = links.view_page(experiment_id, key, address=self.address)
        else:
            trials = links.trials_page(
                experiment_id, parents[0], metric=metric, ascending=ascending, address=self.address
            )
        return CampaignPages(
            run=links.run_page(experiment_id, parents[0], address=self.address),
            trials=trials,
            best=links.compare_page(experiment_id, best, address=self.address) if len(best) > 1 else None,
        )

    @contextmanager
    def _asking(self) -> Iterator[Experiment | None]:
        """Find the experiment that holds all campaigns, for questions about it."""
        if (problem := problem_with(self.client.tracking_uri)) is not None:
            raise TrackingError(problem)
        try:
            yield self.client.get_experiment_by_name(EXPERIMENT)
        except MlflowException as error:
            raise TrackingError(f"MLflow cannot say where a campaign's runs are: got {error}") from error

    def _find(self, experiment_id: str, condition: str, *, most: int, order: str | None = None) -> list[str]:
        order_by = None if order is None else [order]
        runs = self.client.search_runs([experiment_id], condition, max_results=most, order_by=order_by)
        return [str(run.info.run_id) for run in runs]


def _runs_of(campaign: CampaignRecord) -> str:
    return f"tags.campaign = '{campaign.campaign_id}'"
