"""Databases for whatever stands on a ledger: each test that asks for one runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.postgres import PrivatePostgres, find_binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    """Yield a private PostgreSQL; without its binaries the test is skipped, except in continuous integration."""
    binaries = find_binaries()
    if binaries is None:
        assert not os.environ.get("CI"), "continuous integration needs the package postgresql"
        pytest.skip("no PostgreSQL is installed: the ledger is tested on SQLite alone")
    server = PrivatePostgres(binaries)
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the address of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.sqlite'}"
        return
    server: PrivatePostgres = request.getfixturevalue("postgres")
    made = server.new_database()
    yield made
    server.drop(made)
