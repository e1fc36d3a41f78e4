"""A database that goes away and comes back: requests are told when to ask again, and nothing needs a restart."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from spectune.service.api import create_application
from spectune.service.api.context import Context
from spectune.service.campaign.specification.catalog import installed_catalog
from spectune.service.ledger import ServiceLedger
from spectune.service.settings import Settings
from tests.fakes.postgres import PrivatePostgres, find_binaries
from tests.service.api.conftest import document


@pytest.fixture
def server() -> Iterator[PrivatePostgres]:
    """Yield a PostgreSQL that this test alone may stop."""
    binaries = find_binaries()
    if binaries is None:
        assert not os.environ.get("CI"), "continuous integration needs the package postgresql"
        pytest.skip("no PostgreSQL is installed")
    server = PrivatePostgres(binaries)
    yield server
    server.remove()


@pytest.mark.slow
def test_while_the_database_is_away_requests_get_503_and_afterwards_everything_is_there(
    server: PrivatePostgres,
) -> None:
    with ServiceLedger(server.new_database()) as ledger:
        context = Context(ledger=ledger, catalog=installed_catalog(), settings=Settings(), suffix=lambda: "1")
        with TestClient(create_application(context), raise_server_exceptions=False) as client:
            assert client.post("/v1/campaigns", json=document()).status_code == 201
            server.stop()
            for path in ("/v1/campaigns", "/readyz"):
                answer = client.get(path)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                assert answer.headers["content-type"] == "application/problem+json"
            assert client.post("/v1/campaigns", json=document()).status_code == 503
            assert client.get("/healthz").status_code == 200
            server.start()
            assert client.get("/readyz").status_code == 200
            assert len(client.get("/v1/campaigns").json()["campaigns"]) == 1
