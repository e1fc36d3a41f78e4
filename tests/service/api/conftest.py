"""The API over a ledger, without a network: a client that calls the application directly."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from spectune.service.api import create_application
from spectune.service.api.context import Context
from spectune.service.api.examples import SPECIFICATION as EXAMPLE
from spectune.service.campaign.specification.catalog import installed_catalog
from spectune.service.ledger import ServiceLedger, entries
from spectune.service.ports import Pages
from spectune.service.settings import Settings


@dataclass
class Bench:
    """An application with what stands behind it."""

    ledger: ServiceLedger
    application: FastAPI
    client: TestClient
    wakes: list[None] = field(default_factory=list)
    submitted: str = "nobody"  # the id that a test speaks about

    def submit(self, **changes: Any) -> str:
        """Submit a small campaign and give its id."""
        answer = self.client.post("/v1/campaigns", json=document(**changes))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def add_trials(self, campaign_id: str, objectives: list[float | None]) -> None:
        """Let an attempt report trials; those with an objective have completed."""
        attempt = self.ledger.begin_attempt(campaign_id)
        records = []
        for number, objective in enumerate(objectives):
            ask = {"coordinates": {"lr": number / len(objectives)}}
            place: dict[str, Any] = {"arm": number % 2, "seed_index": 0, "ask": ask, "at": 1, "config": {"lr": 0.5}}
            records.append(entries.trial_created(trial=number, point=number // 2, **place))
            if objective is not None:
                report: dict[str, Any] = {"metrics": {"validation_loss": objective}, "device_seconds": 0.5}
                records.append(entries.observation(trial=number, step=60, objective=objective, produced_at=1, **report))
                records.append(entries.trial_moved(trial=number, state=_COMPLETED, reason="end_of_schedule", at=2))
        self.ledger.append(campaign_id, attempt, list(enumerate(records, start=1)))


_COMPLETED = entries.TrialState.COMPLETED


def document(**changes: Any) -> dict[str, Any]:
    """Return a small campaign."""
    return copy.deepcopy(EXAMPLE) | changes


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
def bench(tmp_path: Path, settings: Settings) -> Iterator[Bench]:
    with make_bench(tmp_path, settings) as bench:
        yield bench


@cache
def _empty_ledger() -> bytes:
    """Make the file of an empty ledger, once for all tests: its migrations are half of what a bench costs."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        ServiceLedger.at(path).close()
        return path.read_bytes()


@contextmanager
def make_bench(folder: Path, settings: Settings, *, pages: Pages | None = None) -> Iterator[Bench]:
    """Make an application over a ledger in a folder."""
    numbers = itertools.count()
    wakes: list[None] = []
    (folder / "ledger.sqlite").write_bytes(_empty_ledger())
    with ServiceLedger.at(folder / "ledger.sqlite") as ledger:
        context = Context(
            ledger=ledger,
            catalog=installed_catalog(),
            settings=settings,
            suffix=lambda: f"n{next(numbers)}",
            wake=lambda: wakes.append(None),
            pages=pages,
            probes={"mlflow": lambda: "it does not answer"},
        )
        application = create_application(context)
        with TestClient(application, raise_server_exceptions=False) as client:
            yield Bench(ledger, application, client, wakes)
