"""Writes runs into the tables of an MLflow store on SQLite, everything that is told at once in one transaction.

MLflow's own calls enter one metric at a time and look up its latest value each time; here rows are entered together,
with the meaning of MLflow's `SqlAlchemyStore`: a metric row that is there already is dropped, NaN is a flag, infinities
are the largest numbers, and the latest value of a metric is the one that is largest by (step, timestamp, value).

A server that serves the same file may run meanwhile: SQLite keeps the two apart, MLflow keeps nothing of a run in its
memory, and both are of one installation, so that the tables are the same. The file's journal is a log written ahead, so
that no page that is being read holds up what is written, nor the other way round.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self

from mlflow.entities import LifecycleStage, SourceType
from mlflow.store.tracking.dbmodels.models import (
    SqlExperiment,
    SqlLatestMetric,
    SqlMetric,
    SqlParam,
    SqlRun,
    SqlTag,
)
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from mlflow.utils.uri import append_to_uri_path
from sqlalchemy import BigInteger, Connection, bindparam, func, literal, tuple_, update
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.exc import OperationalError

from spectune.service.campaign.model.records import Refusal
from spectune.service.tracking.run_updates import MetricPoint, RunUpdate
from spectune.service.tracking.served_runs import KnownRun, ServedRuns
from spectune.service.tracking.store_file import make_whole

_ANALYSED_AFTER: Final = 1000  # new runs
_LARGEST: Final = 1.7976931348623157e308
_EXPERIMENTS = SqlExperiment.__table__
_RUNS, _TAGS, _PARAMS = SqlRun.__table__, SqlTag.__table__, SqlParam.__table__
_METRICS, _LATEST = SqlMetric.__table__, SqlLatestMetric.__table__
_Row = dict[str, Any]


class StoredRuns(ServedRuns):
    """Runs of an experiment in a store that is a file of this machine."""

    may_make_twice = False

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._num_new = 0
        with store.engine.connect() as connection, suppress(OperationalError):  # busy: the next that opens it does it
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")

    @classmethod
    def connect(cls, tracking_uri: str) -> Self:
        """Open the store behind an address, which is made if it is not there and mended if it cannot be opened."""
        make_whole(tracking_uri)
        return super().connect(tracking_uri)

    def experiment(self, name: str, artifact_location: str | None) -> str:
        """Find or make an experiment, and have its artifacts where they belong now: the store may have been moved."""
        experiment_id = super().experiment(name, artifact_location)
        before = self._store.get_experiment(experiment_id).artifact_location
        if artifact_location is not None and before != artifact_location:
            self._move_artifacts(experiment_id, before, artifact_location)
        return experiment_id

    def _move_artifacts(self, experiment_id: str, before: str, after: str) -> None:
        """Have everything that lies below one folder lie below another."""
        with self._store.engine.begin() as connection:
            mine = _EXPERIMENTS.c.experiment_id == int(experiment_id)
            connection.execute(update(_EXPERIMENTS).where(mine).values(artifact_location=after))
            for table, column in ((_EXPERIMENTS, "artifact_location"), (_RUNS, "artifact_uri")):
                place = table.c[column]
                is_below = func.substr(place, 1, len(before) + 1) == f"{before}/"
                moved = literal(after).concat(func.substr(place, len(before) + 1))
                connection.execute(update(table).where(is_below).values({column: moved}))

    def write(self, experiment_id: str, news: Sequence[RunUpdate], known: dict[int | None, KnownRun]) -> list[Refusal]:
        """Do what `ServedRuns.write` does, whole or not at all.

        Raises:
            sqlalchemy.exc.DBAPIError: The file cannot be written.
        """
        fresh = {each.trial: uuid.uuid4().hex for each in news if each.trial not in known}
        runs = {each.trial: fresh.get(each.trial) or known[each.trial].run_id for each in news}
        location = self._store.get_experiment(experiment_id).artifact_location if fresh else ""
        with self._store.engine.begin() as connection:
            created = [each for each in news if each.trial in fresh]
            _enter(
                connection, insert(_RUNS), [_run(each, runs[each.trial], experiment_id, location) for each in created]
            )
            _enter(connection, _overwriting_tags(), [row for each in news for row in _tags(each, runs[each.trial])])
            described = [each for each in news if each.trial in fresh or not known[each.trial].is_described]
            _enter(connection, _adding(_PARAMS), [row for each in described for row in _params(each, runs[each.trial])])
            _enter_points(connection, {runs[each.trial]: each.points for each in news})
            standing = [_standing(each, runs[each.trial]) for each in news if each.standing is not None]
            _enter(connection, _restating(), standing)
        for each in news:
            known[each.trial] = KnownRun(runs[each.trial], is_described=True)
        self._num_new += len(created)
        if self._num_new >= _ANALYSED_AFTER or any(_ends_campaign(each) for each in news):
            self._analyse()
        return []

    def _analyse(self) -> None:
        """Tell SQLite how large the tables are: not knowing it, it sorts 10 000 runs by a metric in 10 s, not 0.2.

        The table of what it knows is made anew, which makes it known to a server that has the file open.
        """
        with self._store.engine.begin() as connection:
            for statement in ("PRAGMA analysis_limit = 1000", "DROP TABLE IF EXISTS sqlite_stat1", "ANALYZE"):
                connection.exec_driver_sql(statement)
        self._num_new = 0


def _ends_campaign(news: RunUpdate) -> bool:
    return news.trial is None and news.standing is not None and news.standing.ended_at is not None


def _enter(connection: Connection, statement: Any, rows: Sequence[_Row]) -> None:
    if rows:
        connection.execute(statement, rows)


def _adding(table: Any) -> Insert:
    return insert(table).on_conflict_do_nothing()


def _overwriting_tags() -> Insert:
    statement = insert(_TAGS)
    return statement.on_conflict_do_update(index_elements=["key", "run_uuid"], set_={"value": statement.excluded.value})


def _overwriting_latest() -> Insert:
    """Overwrite what is strictly earlier."""
    statement, order = insert(_LATEST), ("step", "timestamp", "value")
    news = statement.excluded
    later = tuple_(*(news[name] for name in order)) > tuple_(*(_LATEST.c[name] for name in order))
    values = {name: news[name] for name in (*order, "is_nan")}
    return statement.on_conflict_do_update(index_elements=["key", "run_uuid"], set_=values, where=later)


def _restating() -> Any:
    """Set status and end, and leave an end where it stands when none is told, as MLflow does."""
    statement = update(_RUNS).where(_RUNS.c.run_uuid == bindparam("run_id"))
    ended_at = func.coalesce(bindparam("ended_at", type_=BigInteger), _RUNS.c.end_time)
    return statement.values(status=bindparam("new_status"), end_time=ended_at)


def _run(news: RunUpdate, run_id: str, experiment_id: str, location: str) -> _Row:
    return {
        "run_uuid": run_id,
        "name": news.name,
        "artifact_uri": append_to_uri_path(location, run_id, "artifacts"),
        "experiment_id": int(experiment_id),
        "source_type": SourceType.to_string(SourceType.UNKNOWN),
        "source_name": "",
        "entry_point_name": "",
        "source_version": "",
        "user_id": "unknown",
        "status": "RUNNING",
        "start_time": news.created_at,
        "lifecycle_stage": LifecycleStage.ACTIVE,
    }


def _tags(news: RunUpdate, run_id: str) -> Iterable[_Row]:
    standing = {} if news.standing is None else news.standing.tags
    tags = {MLFLOW_RUN_NAME: news.name, **news.identity, **news.tags, **standing}
    return ({"run_uuid": run_id, "key": name, "value": value} for name, value in tags.items())


def _params(news: RunUpdate, run_id: str) -> Iterable[_Row]:
    return ({"run_uuid": run_id, "key": name, "value": value} for name, value in news.params.items())


def _standing(news: RunUpdate, run_id: str) -> _Row:
    assert news.standing is not None
    return {"run_id": run_id, "new_status": news.standing.status, "ended_at": news.standing.ended_at}


def _enter_points(connection: Connection, points: Mapping[str, Sequence[MetricPoint]]) -> None:
    rows = [_metric(point, run_id) for run_id, some in points.items() for point in some]
    latest: dict[tuple[str, str], _Row] = {}
    for row in rows:
        key = row["run_uuid"], row["key"]
        if key not in latest or _order(row) > _order(latest[key]):
            latest[key] = row
    _enter(connection, _adding(_METRICS), rows)
    _enter(connection, _overwriting_latest(), list(latest.values()))


def _metric(point: MetricPoint, run_id: str) -> _Row:
    is_nan = math.isnan(point.value)
    value = 0.0 if is_nan else min(max(point.value, -_LARGEST), _LARGEST)
    place = {"run_uuid": run_id, "key": point.name, "timestamp": point.timestamp, "step": point.step}
    return {**place, "value": value, "is_nan": is_nan}


def _order(row: _Row) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]
