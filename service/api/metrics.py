"""Prometheus metrics: counted while requests are answered, and read from the ledger when they are asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spectune.service.campaign.model.lifecycle import CampaignState
from spectune.service.ledger import ServiceLedger
from spectune.service.ledger.set_aside import SPOOL
from spectune.service.tracking.links import MLFLOW


class LedgerCollector(Collector):
    """What the ledger knows of the service as a whole."""

    def __init__(self, ledger: ServiceLedger) -> None:
        self._ledger = ledger

    def describe(self) -> Iterable[Metric]:
        """Say nothing ahead, so that registering needs no database."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Read the gauges."""
        states = self._ledger.num_campaigns()
        campaigns = GaugeMetricFamily("spectune_campaigns", "Campaigns by state.", labels=["state"])
        for state in CampaignState:
            campaigns.add_metric([state.value], states.get(state, 0))
        yield campaigns
        live = self._ledger.live_submissions()
        now = self._ledger.clock()
        waiting = [now - each.campaign.since for each in live if each.campaign.state is CampaignState.QUEUED]
        yield _gauge("spectune_queue_depth", "Campaigns that wait to be launched.", len(waiting))
        yield _gauge(
            "spectune_queue_oldest_seconds", "How long the first of them waits.", max(waiting, default=0) / 1000
        )
        yield _gauge("spectune_lost_attempts", "Lost attempts of live campaigns.", sum(e.num_failures for e in live))
        running = [each.campaign_id for each in live if each.campaign.state is CampaignState.RUNNING]
        ages = [now - beat for beat in self._ledger.heartbeats(running).values() if beat is not None]
        yield _gauge("spectune_heartbeat_age_seconds", "Age of the oldest last heartbeat.", max(ages, default=0) / 1000)
        yield _gauge("spectune_projector_lag", "What MLflow has not been told.", self._ledger.lag(MLFLOW))
        since = self._ledger.untold_since(MLFLOW)
        late = 0.0 if since is None else max(0.0, (now - since) / 1000)
        yield _gauge("spectune_projector_lag_seconds", "Age of the oldest event that MLflow has not been told.", late)
        yield _gauge("spectune_projector_refused", "What MLflow refuses to hold.", self._ledger.num_buried(MLFLOW))
        yield _gauge(
            "spectune_set_aside", "Records of drivers that the ledger cannot hold.", self._ledger.num_buried(SPOOL)
        )
        attempts = GaugeMetricFamily("spectune_attempts", "Launches of drivers, by how far they came.", labels=["came"])
        for came, count in self._ledger.num_attempts().items():
            attempts.add_metric([came], count)
        yield attempts
        told = self._ledger.num_observations()
        yield CounterMetricFamily(
            "spectune_observations", "Observations that the ledger holds; its rate is theirs.", told
        )
        yield _gauge("spectune_events_total", "Events and observations of all campaigns.", self._ledger.num_changes())


def _gauge(name: str, sentence: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, sentence, value=value)


class RequestTimes:
    """Middleware that measures how long answers take, by route, method and status, until their headers are sent."""

    def __init__(self, application: ASGIApp, registry: CollectorRegistry) -> None:
        self._application = application
        self._seconds = Histogram(
            "spectune_request_seconds", "Time to an answer's headers.", ["route", "method", "status"], registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request and measure it."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        start = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                labels = (route, scope["method"] if route != "none" else "any", str(message["status"]))
                self._seconds.labels(*labels).observe(time.perf_counter() - start)
            await send(message)

        await self._application(scope, receive, measured)
