"""Writes runs through MLflow's own calls: to a server, a few requests a run, or to any store.

Making a run is not idempotent: one whose answer was lost may be there all the same, even after a search that did not
find it, and MLflow's client asks again by itself and tells nobody. So all runs of a campaign are looked for before the
first is made, after every failure and once it has ended; of two with the same trial the one with parameters is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Self

from mlflow.entities import ExperimentTag, Metric, Param, Run, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE, ErrorCode
from mlflow.tracking._tracking_service.utils import _get_store  # MlflowClient asks for a run before it ends one

from spectune.service.campaign.model.records import Refusal
from spectune.service.tracking.run_updates import MetricPoint, RunUpdate
from spectune.service.tracking.views import VIEW_TAG, outdated

MAX_BATCH: Final = 1000
"""Metrics, parameters and tags of a request together (mlflow.utils.validation)."""
NUM_CONNECTIONS: Final = 8
"""A server with several workers answers late, not slowly: each answer waits for 40 ms (docs/decisions/0501)."""
_PAGE: Final = 1000
_REFUSALS: Final = {ErrorCode.Name(INVALID_PARAMETER_VALUE), ErrorCode.Name(BAD_REQUEST)}
_PATIENCE: Final = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.1",
}
"""A request that fails now and then is repeated at once; what lasts longer is the breaker's."""


@dataclass(frozen=True)
class KnownRun:
    """A run that MLflow holds.

    Attributes:
        run_id: MLflow's.
        status: As last told; None where it is not known.
        is_described: Whether its parameters are certain to be there.
    """

    run_id: str
    status: str | None = None
    is_described: bool = False


class ServedRuns:
    """Runs of an experiment.

    Args:
        store: MLflow's tracking store, local or remote.
        num_connections: How many runs are written side by side.
    """

    may_make_twice = True

    def __init__(self, store: Any, *, num_connections: int = NUM_CONNECTIONS) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(num_connections, thread_name_prefix="mlflow")

    @classmethod
    def connect(cls, tracking_uri: str) -> Self:
        """Speak to the MLflow behind an address; MLflow's own variables say who we are (`MLFLOW_TRACKING_USERNAME`)."""
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        return cls(_get_store(tracking_uri))

    def experiment(self, name: str, artifact_location: str | None) -> str:
        """Find or make an experiment; give its id."""
        found = self._store.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._store.create_experiment(name, artifact_location, []))

    def holds(self, name: str) -> bool:
        """Return whether there is an experiment of this name."""
        return self._store.get_experiment_by_name(name) is not None

    def show(self, experiment_id: str, key: str, view: str) -> None:
        """Keep a view of runs, which a link names by its key, and forget the oldest if there are too many."""
        self._store.set_experiment_tag(experiment_id, ExperimentTag(VIEW_TAG + key, view))
        for tag in outdated(self._store.get_experiment(experiment_id).tags):
            self._store.delete_experiment_tag(experiment_id, tag)

    def find(self, experiment_id: str, campaign_id: str) -> dict[int | None, KnownRun]:
        """Find a campaign's runs, by trial; of those that are there twice only the one with parameters stays."""
        found: dict[int | None, KnownRun] = {}
        runs = self._runs(experiment_id, f"tags.campaign = '{campaign_id}'")
        for run in sorted(runs, key=lambda run: (-len(run.data.params), run.info.run_id)):
            trial = run.data.tags.get("trial")
            key = None if trial is None else int(trial)
            if key in found:
                self._store.delete_run(run.info.run_id)
            else:
                found[key] = KnownRun(run.info.run_id, run.info.status)
        return found

    def write(self, experiment_id: str, news: Sequence[RunUpdate], known: dict[int | None, KnownRun]) -> list[Refusal]:
        """Tell runs what there is to tell, making those that are not there.

        Args:
            experiment_id: Where new runs belong.
            news: At most one of each run.
            known: The campaign's runs, kept up to date.

        Returns:
            What MLflow refused as such; everything else is there.

        Raises:
            MlflowException: It cannot be reached or has failed; all may be told again.
        """
        answers = [self._pool.submit(self._write_one, experiment_id, each, known) for each in news]
        refusals: list[Refusal] = []
        failure: BaseException | None = None
        for answer in answers:  # what has begun is waited for, so that none writes behind a later try
            if failure is not None and answer.cancel():
                continue
            failure = failure or answer.exception()
            refusals += [] if answer.exception() else answer.result()
        if failure is not None:
            raise failure
        return refusals

    def _write_one(self, experiment_id: str, news: RunUpdate, known: dict[int | None, KnownRun]) -> list[Refusal]:
        run, standing = known.get(news.trial), news.standing
        tags = {} if standing is None else dict(standing.tags)
        if run is None:  # its tags go with it, which saves the server a transaction
            run, tags = self._create(experiment_id, news, {**news.identity, **tags}), dict(news.tags)
        elif not run.is_described:
            tags = {**news.identity, **news.tags, **tags}
        known[news.trial] = run
        params = [] if run.is_described else [Param(name, value) for name, value in news.params.items()]
        refusals = self._log(run.run_id, news, params, [RunTag(name, value) for name, value in tags.items()])
        status = run.status
        if standing is not None and (standing.status != status or standing.ended_at is not None):
            status = standing.status
            self._store.update_run_info(run.run_id, RunStatus.from_string(status), standing.ended_at, None)
        known[news.trial] = KnownRun(run.run_id, status, is_described=True)
        return refusals

    def _create(self, experiment_id: str, news: RunUpdate, tags: Mapping[str, str]) -> KnownRun:
        given = [RunTag(name, value) for name, value in tags.items()]
        run = self._store.create_run(experiment_id, "unknown", news.created_at, given, news.name)
        return KnownRun(str(run.info.run_id), "RUNNING")

    def _log(self, run_id: str, news: RunUpdate, params: list[Param], tags: list[RunTag]) -> list[Refusal]:
        metrics, first = list(news.points), MAX_BATCH - len(params) - len(tags)
        refusals = []
        if params or tags or metrics:
            refusals += self._batch(run_id, news, metrics[:first], params, tags)
        for start in range(first, len(metrics), MAX_BATCH):
            refusals += self._batch(run_id, news, metrics[start : start + MAX_BATCH], [], [])
        return refusals

    def _batch(
        self, run_id: str, news: RunUpdate, points: list[MetricPoint], params: list[Param], tags: list[RunTag]
    ) -> list[Refusal]:
        try:
            self._store.log_batch(run_id, [Metric(*point) for point in points], params, tags)
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            return self._one_by_one(run_id, news, points, params, tags)
        return []

    def _one_by_one(
        self, run_id: str, news: RunUpdate, points: list[MetricPoint], params: list[Param], tags: list[RunTag]
    ) -> list[Refusal]:
        """Find out what of a batch is refused; the rest is written."""
        refusals = []
        parts: list[tuple[Any, list[Any], list[Any], list[Any]]] = [(each, [Metric(*each)], [], []) for each in points]
        parts += [(param, [], [param], []) for param in params] + [(tag, [], [], [tag]) for tag in tags]
        for part, *batch in parts:
            try:
                self._store.log_batch(run_id, *batch)
            except MlflowException as error:
                if error.error_code not in _REFUSALS:
                    raise
                refusals.append(Refusal(news.trial, str(part), str(error)))
        return refusals

    def _runs(self, experiment_id: str, filter_string: str) -> Iterator[Run]:
        token: str | None = None
        while True:
            page = self._store.search_runs(
                [experiment_id], filter_string, ViewType.ACTIVE_ONLY, max_results=_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return
