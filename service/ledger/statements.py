"""Statements that SQLAlchemy Core spells differently for each database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, literal
from sqlalchemy.dialects import postgresql, sqlite


def insert_or_ignore(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless its key exists; waits for another transaction that is inserting the same key.

    Returns:
        Whether the row was inserted.
    """
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values(dict(values)).on_conflict_do_nothing()
    return connection.execute(statement.returning(literal(1))).first() is not None  # psycopg gives no row count here
