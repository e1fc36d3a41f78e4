"""Opens the ledger's database: SQLite's settings, and the schema brought up to date by Alembic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from service.errors import LedgerError

BUSY_TIMEOUT_SECONDS = 30
_MIGRATIONS = Path(__file__).parent / "migrations"


def connect_engine(url: URL | str) -> Engine:
    """Open the database behind `url` and upgrade its schema.

    Raises:
        LedgerError: The database cannot be opened, is none, or has a schema of a later release.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    try:
        upgrade(engine)
    except (DBAPIError, CommandError) as error:
        engine.dispose()
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise LedgerError(f"the ledger cannot be opened ({reason}): got {url}") from error
    return engine


def upgrade(engine: Engine) -> None:
    """Bring the schema up to date, in one transaction; harmless where it is, and where two processes do so at once."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # or two processes that open a new file both make the tables
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _set_up_sqlite(connection: Any, _: Any) -> None:
    """Let readers and one writer work side by side, and put every commit on disk before it counts."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
