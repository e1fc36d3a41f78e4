"""The one place where the service's parts meet: ledger, launcher, tracker, reconciler and API for a data directory."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Mapping, Sequence

from service.api.context import Context
from service.campaign.catalog import installed_catalog
from service.data_directory import DataDirectory
from service.embedded import EmbeddedCampaign, Projection
from service.launchers import SubprocessLauncher
from service.ledger import Ledger, ServiceLedger
from service.reconciler import Reconciler
from service.reconciler.admission import Capacity
from service.settings import Settings
from service.tracking import links
from service.tracking.follower import Follower
from service.tracking.projector import Projector


def embedded_campaign(data: DataDirectory, ledger: Ledger, campaign_id: str) -> EmbeddedCampaign:
    """Wire a campaign that this process owns."""
    return EmbeddedCampaign(ledger, SubprocessLauncher(data), data=data, campaign_id=campaign_id)


def embedded_projection(data: DataDirectory, campaign_ids: Sequence[str]) -> Projection:
    """Wire the projection of campaigns into the data directory's MLflow store, the running one last."""
    return Projection(lambda: embedded_projectors(data, campaign_ids))


def embedded_projectors(data: DataDirectory, campaign_ids: Sequence[str]) -> list[Projector]:
    """Wire projectors into the data directory's MLflow store."""
    from service.tracking.mlflow_tracker import MlflowTracker  # two seconds of imports, not wanted before

    tracker = MlflowTracker.connect(
        data.mlflow_uri, address=links.EMBEDDED_ADDRESS, artifact_location=data.mlflow_artifacts.as_uri()
    )
    ledger = Ledger.at(data.ledger)
    return [Projector(ledger, tracker, campaign_id) for campaign_id in campaign_ids]


def service_ledger(data: DataDirectory, settings: Settings) -> ServiceLedger:
    """Open the ledger of a service."""
    return ServiceLedger.at(data.ledger) if settings.database_url is None else ServiceLedger(settings.database_url)


def service_reconciler(data: DataDirectory, ledger: ServiceLedger, settings: Settings) -> Reconciler:
    """Wire the reconciler of a service; the lock on its data directory makes its name unique."""
    capacity = Capacity(num_cpus=settings.num_cpus, max_running=settings.max_running)
    launcher = SubprocessLauncher(data, database_url=settings.database_url, outlives_owner=True)
    holder = f"{socket.gethostname()}:{data.root}"[-120:]
    return Reconciler(ledger, launcher, data=data, capacity=capacity, holder=holder)


def service_context(
    data: DataDirectory,
    ledger: ServiceLedger,
    settings: Settings,
    *,
    wake: Callable[[], None],
    probes: Mapping[str, Callable[[], str | None]],
) -> Context:
    """Wire the API of a service."""

    def driver_log(campaign_id: str, attempt: int) -> bytes | None:
        log = data.driver_log(campaign_id, attempt)
        return log.read_bytes() if log.exists() else None

    return Context(
        ledger=ledger,
        catalog=installed_catalog(),
        settings=settings,
        suffix=lambda: secrets.token_hex(5),
        wake=wake,
        driver_log=driver_log,
        probes=probes,
    )


def service_follower(data: DataDirectory, ledger: ServiceLedger, settings: Settings, address: str) -> Follower:
    """Wire the projection of all campaigns of a service; `address` is where people open MLflow."""

    def make(campaign_ids: Sequence[str]) -> list[Projector]:
        from service.tracking.mlflow_tracker import MlflowTracker  # two seconds of imports, not wanted before

        own = settings.mlflow_uri is None
        tracker = MlflowTracker.connect(
            settings.mlflow_uri or data.mlflow_uri,
            address=address,
            artifact_location=data.mlflow_artifacts.as_uri() if own else None,
        )
        return [Projector(ledger, tracker, campaign_id) for campaign_id in campaign_ids]

    return Follower(ledger, make)
