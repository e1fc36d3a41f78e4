"""The schema: what the migrations make is what the code uses, also from a database that an earlier release left."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine

from spectune.service.campaign.model.lifecycle import CampaignState, TrialState
from spectune.service.ledger import Ledger, entries
from spectune.service.ledger.engine import connect_engine
from spectune.service.ledger.tables import metadata
from tests.fakes.dying import die_at

STORED = Path(__file__).parent / "stored"


@pytest.fixture
def stored(database: str) -> str:
    """Fill the database with what a release of schema 0001 wrote, and give its address."""
    if database.startswith("sqlite"):
        connection = sqlite3.connect(database.removeprefix("sqlite:///"))
        connection.executescript((STORED / "0001.sqlite.sql").read_text(encoding="utf-8"))
        connection.close()
    else:
        with psycopg.connect(database) as server:
            server.execute((STORED / "0001.postgresql.sql").read_bytes())
    return database


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = connect_engine(database)
    yield engine
    engine.dispose()


def differences(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        found: list[Any] = compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True}), metadata
        )
    return found


def test_the_comparison_notices_a_table_that_is_missing(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE leases")
    assert differences(engine) != []


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(engine: Engine) -> None:
    assert differences(engine) == []


def test_a_database_of_the_first_schema_is_upgraded_to_exactly_these_tables(stored: str) -> None:
    engine = connect_engine(stored)
    assert differences(engine) == []
    engine.dispose()


def test_what_a_release_of_the_first_schema_wrote_is_still_there_and_goes_on(stored: str) -> None:
    with Ledger(stored) as ledger:
        campaign = ledger.campaign("c")
        assert (campaign.name, campaign.state, campaign.attempt) == ("stored", CampaignState.RUNNING, 1)
        assert campaign.specification["arithmetic"] == "fastest"
        (trial,) = ledger.trials("c")
        assert trial.executions == ()
        assert (trial.state, repr(trial.objective)) == (TrialState.DIVERGED, "nan")
        assert ledger.cursor("mlflow", "c") == 3
        observed = entries.observation(
            trial=0, step=20, metrics={"loss": 1.0}, objective=1.0, device_seconds=0.5, produced_at=4
        )
        ledger.append("c", 1, [(4, observed)])
        sequences = [change.sequence for change in ledger.changes("c", after=0, limit=100)]
        assert sequences == list(range(1, campaign.sequence + 2))


@pytest.mark.parametrize("made_by", ["nobody", "an earlier release"])
def test_a_process_that_is_killed_while_it_makes_the_schema_leaves_a_ledger_that_opens(
    made_by: str, tmp_path: Path
) -> None:
    statement, was_killed = 0, True
    while was_killed:
        statement += 1
        path = tmp_path / f"{statement}.sqlite"
        if made_by != "nobody":
            connection = sqlite3.connect(path)
            connection.executescript((STORED / "0001.sqlite.sql").read_text(encoding="utf-8"))
            connection.close()
        was_killed = die_at(statement, partial(Ledger.at, path))
        with Ledger.at(path) as ledger:
            assert len(ledger.campaigns()) == (0 if made_by == "nobody" else 1)
    assert statement > 10, "the child was killed at every statement"
