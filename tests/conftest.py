"""What all tests share: two processors, and servers whose start takes seconds.

Whole campaigns run one after another in one process, and the files of the rest beside them: two whole campaigns at once
would take each other's processors, and their waits would prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.fakes.mlflow_server import PrivateMlflow

WHOLE_CAMPAIGNS = "tests/integration"

MLFLOW_PASSWORD = "correct-horse-battery"


@pytest.fixture(scope="session")
def mlflow_server() -> Iterator[PrivateMlflow]:
    """An MLflow server; each test has campaigns of its own in it, and who kills it starts it again."""
    from mlflow import MlflowClient  # two seconds, of which other tests need know nothing

    from spectune.service.tracking.mlflow_tracker import EXPERIMENT

    server = PrivateMlflow()
    MlflowClient(server.address).create_experiment(EXPERIMENT)  # by the server, which knows where its artifacts go
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def guarded_mlflow() -> Iterator[PrivateMlflow]:
    """A server that asks for a password and is called by another name than those it knows."""
    server = PrivateMlflow(
        arguments=("--app-name", "basic-auth", "--allowed-hosts", "127.0.0.1:*"),
        environment={"MLFLOW_AUTH_ADMIN_PASSWORD": MLFLOW_PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY": "a test's key"},
    )
    try:
        yield server
    finally:
        server.remove()


class CampaignsTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Give a process one file at a time, and all the whole campaigns as if they were one file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return WHOLE_CAMPAIGNS if file.startswith(WHOLE_CAMPAIGNS) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> CampaignsTogether:
    """Share the tests out so wherever they run in several processes (`--numprocesses`)."""
    return CampaignsTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the whole campaigns, which take longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(WHOLE_CAMPAIGNS))
