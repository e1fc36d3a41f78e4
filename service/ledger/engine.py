"""Opens the ledger's database, SQLite or PostgreSQL: their settings, and the schema brought up to date by Alembic."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    Engine,
    create_engine,
    event,
    func,
    literal_column,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from spectune.service.errors import LedgerError

BUSY_TIMEOUT_SECONDS = 30
CONNECT_TIMEOUT_SECONDS = 5
_RETRY_SECONDS = 0.01
_UPGRADE_LOCK = 7_304_118  # any number that nobody else takes as an advisory lock in our database
_CLOCKS = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}
_MIGRATIONS = Path(__file__).parent / "migrations"


def connect_engine(url: URL | str) -> Engine:
    """Open the database behind `url` and upgrade its schema.

    Raises:
        LedgerError: The database cannot be opened, is none, or has a schema of a later release.
    """
    try:
        engine = _make_engine(url)
    except (ArgumentError, NoSuchModuleError) as error:
        raise LedgerError(f"no address of a database of ours: got {_without_password(url)}") from error
    try:
        upgrade(engine)
    except (DBAPIError, CommandError) as error:
        engine.dispose()
        reason = str(error.orig if isinstance(error, DBAPIError) else error).strip()
        raise LedgerError(f"the ledger cannot be opened ({reason}): got {address(engine)}") from error
    return engine


def address(engine: Engine) -> str:
    """Return where a database is, without its password."""
    return engine.url.render_as_string(hide_password=True)


def database_clock(dialect: str) -> ColumnElement[int]:
    """Return the database's own clock in milliseconds since the epoch: one for all who write to it."""
    return literal_column(_CLOCKS[dialect], BigInteger())


def _make_engine(url: URL | str) -> Engine:
    made = make_url(url)
    match made.get_backend_name():
        case "sqlite":
            engine = create_engine(made)
            event.listen(engine, "connect", _set_up_sqlite)
            return engine
        case "postgresql":
            options = {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
            made = made.set(drivername="postgresql+psycopg")
            return create_engine(made, pool_pre_ping=True, connect_args=options)
        case _:
            raise ArgumentError


def _without_password(url: URL | str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:  # what cannot be read may hold a password anywhere
        return "an address that cannot be read"


def upgrade(engine: Engine) -> None:
    """Bring the schema up to date, in one transaction; harmless where it is, and where two processes do so at once."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # or two processes that open a new file both make the tables
        else:
            connection.execute(select(func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_up_to_date(engine: Engine) -> bool:
    """Return whether the schema is the one of this release; only reads.

    Raises:
        DBAPIError: The database cannot be read, or is none.
    """
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_heads()
    return set(current) == set(ScriptDirectory(str(_MIGRATIONS)).get_heads())


def _set_up_sqlite(connection: Any, _: Any) -> None:
    """Let readers and one writer work side by side, and put every commit on disk before it counts."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
    _turn_to_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _turn_to_wal(cursor: Any) -> None:
    """Let readers and a writer work side by side; SQLite does not wait by itself where others open a new file too."""
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return
