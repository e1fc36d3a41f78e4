"""The one place where the service's parts meet: ledger, launcher, tracker, reconciler and API for a data directory."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from service.campaign.catalog import installed_catalog
from service.campaign.records import CampaignRecord, Observation, TrialRecord
from service.data_directory import DataDirectory
from service.embedded import EmbeddedCampaign
from service.launchers import JobsApi, RayJobLauncher, SubprocessLauncher
from service.launchers.jobs_api import environment_token
from service.launchers.marks import absolute_path
from service.ledger import Ledger, ServiceLedger
from service.ports import CampaignPages, LastingLauncher, Pages
from service.reconciler import Reconciler
from service.reconciler.admission import Capacity
from service.settings import Settings
from service.tracking import links
from service.tracking.follower import Follower
from service.tracking.projection import Projection
from service.tracking.projector import Projector

if TYPE_CHECKING:
    from service.api.context import Context

TRACKING_LEASE_SECONDS = 300.0  # a window through a slow MLflow takes a minute; a restarted service keeps its name


def embedded_launcher(data: DataDirectory) -> SubprocessLauncher:
    """Wire drivers that belong to this process."""
    return SubprocessLauncher(data)


def embedded_campaign(
    data: DataDirectory, ledger: Ledger, campaign_id: str, launcher: SubprocessLauncher
) -> EmbeddedCampaign:
    """Wire a campaign that this process owns."""
    return EmbeddedCampaign(ledger, launcher, data=data, campaign_id=campaign_id)


def embedded_projection(data: DataDirectory, campaign_ids: Sequence[str]) -> Projection:
    """Wire the projection of campaigns into the data directory's MLflow store, the running one last."""
    return Projection(lambda: embedded_projectors(data, campaign_ids))


def embedded_projectors(data: DataDirectory, campaign_ids: Sequence[str]) -> list[Projector]:
    """Wire projectors into the data directory's MLflow store."""
    return projectors(data, Ledger.at(data.ledger), campaign_ids, mlflow_uri=None, address=links.EMBEDDED_ADDRESS)


def projectors(
    data: DataDirectory, ledger: Ledger, campaign_ids: Sequence[str], *, mlflow_uri: str | None, address: str
) -> list[Projector]:
    """Wire projectors of campaigns.

    Args:
        data: Has an MLflow store of its own.
        ledger: Holds the campaigns.
        campaign_ids: Which.
        mlflow_uri: Another MLflow; None for the data directory's.
        address: Where people open MLflow.
    """
    from service.tracking.attachments import MlflowAttachments
    from service.tracking.mlflow_tracker import MlflowTracker  # two seconds of imports, not wanted before

    artifacts = data.mlflow_artifacts.as_uri() if mlflow_uri is None else None
    uri = mlflow_uri or data.mlflow_uri
    tracker = MlflowTracker.connect(uri, address=address, artifact_location=artifacts)
    attachments = MlflowAttachments.connect(ledger, uri, _documents)
    return [Projector(ledger, tracker, campaign_id, attachments=attachments) for campaign_id in campaign_ids]


def _documents(
    campaign: CampaignRecord, trials: Sequence[TrialRecord], observations: Sequence[Observation]
) -> dict[str, bytes]:
    from service.campaign.specification import restore
    from service.findings.bundle import write_bundle
    from service.findings.documents import campaign_documents  # Plotly, torch and Optuna

    documents = campaign_documents(campaign, trials, observations, catalog=installed_catalog())
    bundle = write_bundle(documents, restore(campaign.specification), trials, observations)
    return {name: text.encode() for name, text in documents.items()} | {"bundle.zip": bundle}


class LazyPages:
    """Pages that are connected when they are first asked for: MLflow's imports take two seconds.

    Args:
        tracking_uri: The MLflow that is asked.
        address: Where people open it.
    """

    def __init__(self, tracking_uri: str, *, address: str) -> None:
        self._tracking_uri = tracking_uri
        self._address = address

    def of_campaign(self, campaign: CampaignRecord) -> CampaignPages:
        """Give a campaign's pages."""
        return self._pages.of_campaign(campaign)

    def of_trial(self, campaign: CampaignRecord, number: int) -> str | None:
        """Give a trial's page."""
        return self._pages.of_trial(campaign, number)

    @cached_property
    def _pages(self) -> Pages:
        from service.tracking.pages import MlflowPages

        return MlflowPages.connect(self._tracking_uri, address=self._address)


def embedded_pages(data: DataDirectory) -> Pages:
    """Wire the way to the pages of the data directory's MLflow, once its own command serves it."""
    return LazyPages(data.mlflow_uri, address=links.EMBEDDED_ADDRESS)


def service_pages(data: DataDirectory, settings: Settings, address: str) -> Pages:
    """Wire the way to the pages of a service's MLflow; `address` is where people open it."""
    return LazyPages(settings.mlflow_uri or data.mlflow_uri, address=address)


def mlflow_probe(tracking_uri: str) -> Callable[[], str | None]:
    """Make a check of an MLflow that is not ours."""

    def probe() -> str | None:
        from service.tracking.reach import problem_with

        return problem_with(tracking_uri)

    return probe


def service_ledger(data: DataDirectory, settings: Settings) -> ServiceLedger:
    """Open the ledger of a service."""
    return ServiceLedger.at(data.ledger) if settings.database_url is None else ServiceLedger(settings.database_url)


def process_launcher(data: DataDirectory, settings: Settings) -> SubprocessLauncher:
    """Wire drivers that are processes of this machine, each with a Ray of its own."""
    return SubprocessLauncher(data, database_url=settings.database_url, outlives_owner=True)


def local_ray_launcher(
    data: DataDirectory, settings: Settings, *, address: Callable[[], str], token: str
) -> RayJobLauncher:
    """Wire drivers that are jobs of this service's own Ray."""
    kept = {name: absolute_path(os.environ[name]) for name in ("PYTHONPATH",) if name in os.environ}
    api = JobsApi.connect(address, token=token)
    return RayJobLauncher(api, data=data, num_cpus=settings.num_cpus, python=sys.executable, variables=kept)


def cluster_launcher(data: DataDirectory, settings: Settings) -> RayJobLauncher:
    """Wire drivers that are jobs of somebody else's Ray."""
    where = settings.ray_address
    assert where is not None, "asked for only where there is one"
    api = JobsApi.connect(lambda: where, token=environment_token())
    return RayJobLauncher(api, data=data, num_cpus=settings.num_cpus)


def service_reconciler(
    data: DataDirectory, ledger: ServiceLedger, settings: Settings, launcher: LastingLauncher, *, holder: str
) -> Reconciler:
    """Wire the reconciler of a service that calls itself `holder`, as no other replica does."""
    num_gpus = installed_catalog().num_gpus if settings.num_gpus is None else settings.num_gpus
    capacity = Capacity(num_cpus=settings.num_cpus, max_running=settings.max_running, num_gpus=num_gpus)
    return Reconciler(ledger, launcher, data=data, capacity=capacity, holder=holder)


def service_context(
    data: DataDirectory,
    ledger: ServiceLedger,
    settings: Settings,
    *,
    wake: Callable[[], None],
    pages: Pages | None,
    probes: Mapping[str, Callable[[], str | None]],
) -> Context:
    """Wire the API of a service."""
    from service.api.context import Context  # FastAPI takes a second, which `spectune run` need not wait for
    from service.api.probes import RecentAnswer

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
        pages=pages,
        probes={name: RecentAnswer(probe) for name, probe in probes.items()},
    )


def service_follower(
    data: DataDirectory, ledger: ServiceLedger, settings: Settings, address: str, *, holder: str
) -> Follower:
    """Wire the projection of all campaigns of a service; `address` is where people open MLflow."""

    def make(campaign_ids: Sequence[str]) -> list[Projector]:
        return projectors(data, ledger, campaign_ids, mlflow_uri=settings.mlflow_uri, address=address)

    return Follower(ledger, make, lead=lambda: lead_tracking(ledger, holder))


def lead_tracking(ledger: ServiceLedger, holder: str) -> bool:
    """Take, or prolong, the right to be the only one who tells MLflow: two would make every run twice."""
    return ledger.take_lease(links.MLFLOW, holder=holder, seconds=TRACKING_LEASE_SECONDS)


def holder_of(data: DataDirectory, address: str) -> str:
    """Name a service so that it bears the same name after a restart, and no other replica does."""
    return f"{socket.gethostname()} {address} {data.root}"[-120:]
