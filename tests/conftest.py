"""Servers that tests of several rooms share: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.mlflow_server import PrivateMlflow

MLFLOW_PASSWORD = "correct-horse-battery"


@pytest.fixture(scope="session")
def mlflow_server() -> Iterator[PrivateMlflow]:
    """An MLflow server; each test has campaigns of its own in it, and who kills it starts it again."""
    from mlflow import MlflowClient  # two seconds, of which other tests need know nothing

    from service.tracking.mlflow_tracker import EXPERIMENT

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
