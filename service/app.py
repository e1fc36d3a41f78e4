"""The one place where the service's parts meet: ledger, launcher, tracker, reconciler and API for a data directory."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from spectune.service.campaign.model.lifecycle import CampaignState
from spectune.service.campaign.model.records import CampaignRecord, Observation, TrialRecord
from spectune.service.campaign.specification.catalog import installed_catalog
from spectune.service.control.admission import Capacity
from spectune.service.control.embedded import EmbeddedCampaign
from spectune.service.control.loop import Reconciler
from spectune.service.data_directory import DataDirectory
from spectune.service.launchers import JobsApi, RayJobLauncher, SubprocessLauncher
from spectune.service.launchers.jobs_api import environment_token
from spectune.service.launchers.process_tags import absolute_path
from spectune.service.ledger import Ledger, ServiceLedger
from spectune.service.ports import CampaignPages, LastingLauncher, Pages
from spectune.service.settings import Settings
from spectune.service.tracking import links
from spectune.service.tracking.follower import Follower, is_behind
from spectune.service.tracking.projection import Projection
from spectune.service.tracking.projector import Projector

if TYPE_CHECKING:
    from spectune.service.api.context import Context

TRACKING_LEASE_SECONDS = 300.0  # a window through a slow MLflow takes a minute; a restarted service keeps its name


def embedded_launcher(data: DataDirectory) -> SubprocessLauncher:
    """Wire drivers that belong to this process."""
    return SubprocessLauncher(data)


def embedded_campaign(
    data: DataDirectory, ledger: Ledger, campaign_id: str, launcher: SubprocessLauncher
) -> EmbeddedCampaign:
    """Wire a campaign that this process owns."""
    return EmbeddedCampaign(ledger, launcher, data=data, campaign_id=campaign_id)


def embedded_projection(data: DataDirectory, campaign_id: str) -> Projection:
    """Wire the projection of a campaign, and of those left behind, into the data directory's MLflow store."""
    return Projection(lambda: embedded_projectors(data, campaign_id))


def embedded_projectors(data: DataDirectory, campaign_id: str) -> list[Projector]:
    """Wire projectors into the data directory's MLflow store, that of the running campaign last."""
    ledger = Ledger.at(data.ledger)
    (own,) = projectors(data, ledger, [campaign_id], mlflow_uri=None, address=links.EMBEDDED_ADDRESS)
    others = _left_behind(ledger, campaign_id)
    found = projectors(data, ledger, others, mlflow_uri=None, address=links.EMBEDDED_ADDRESS) if others else []
    return [*found, own]


def _left_behind(ledger: Ledger, campaign_id: str) -> list[str]:
    """List the campaigns at rest that MLflow does not hold whole: their owner was killed, or MLflow's store is new.

    Of others, the process that runs them tells.
    """
    others = [each for each in reversed(ledger.campaigns()) if each.campaign_id != campaign_id]
    at_rest = [each for each in others if each.state.is_terminal or each.state is CampaignState.PAUSED]
    return [each.campaign_id for each in at_rest if is_behind(ledger, each)]


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
    from spectune.service.tracking.attachments import MlflowAttachments
    from spectune.service.tracking.mlflow_tracker import MlflowTracker  # two seconds of imports, not wanted before

    artifacts = data.mlflow_artifacts.as_uri() if mlflow_uri is None else None
    uri = mlflow_uri or data.mlflow_uri
    tracker = MlflowTracker.connect(uri, address=address, artifact_location=artifacts)
    if mlflow_uri is None:
        if tracker.is_new():
            ids = [each.campaign_id for each in ledger.campaigns()]
            forget_told(ledger, [each for each in ids if ledger.cursor(links.MLFLOW, each)])
        tracker.experiment_id()  # also finds out whether the store has been moved
    attachments = MlflowAttachments.connect(ledger, uri, _documents)
    return [Projector(ledger, tracker, campaign_id, attachments=attachments) for campaign_id in campaign_ids]


def forget_told(ledger: Ledger, campaign_ids: Iterable[str]) -> None:
    """Forget what MLflow has been told of campaigns and what it refused, so that it is told everything again."""
    for campaign_id in campaign_ids:
        for tracker in (links.MLFLOW, links.ATTACHMENTS):
            if ledger.cursor(tracker, campaign_id):
                ledger.set_cursor(tracker, campaign_id, 0)
        ledger.clear_dead_letters(links.MLFLOW, campaign_id)


def _documents(
    campaign: CampaignRecord, trials: Sequence[TrialRecord], observations: Sequence[Observation]
) -> dict[str, bytes]:
    from spectune.service.campaign.specification.specification import restore
    from spectune.service.findings.bundle import write_bundle
    from spectune.service.findings.documents import campaign_documents  # Plotly, torch and Optuna

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
        """Return a campaign's pages."""
        return self._pages.of_campaign(campaign)

    def of_trial(self, campaign: CampaignRecord, number: int) -> str | None:
        """Return a trial's page."""
        return self._pages.of_trial(campaign, number)

    @cached_property
    def _pages(self) -> Pages:
        from spectune.service.tracking.pages import MlflowPages

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
        from spectune.service.tracking.health import problem_with

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
    kept |= {"SPECTUNE_DATA_ACCESS": settings.data_access.value}
    api = JobsApi.connect(address, token=token)
    return RayJobLauncher(
        api, data=data, num_cpus=settings.num_cpus, python=sys.executable, variables=kept, is_local=True
    )


def cluster_launcher(data: DataDirectory, settings: Settings) -> RayJobLauncher:
    """Wire drivers that are jobs of somebody else's Ray."""
    where = settings.ray_address
    assert where is not None, "asked for only where there is one"
    api = JobsApi.connect(lambda: where, token=environment_token())
    access = {"SPECTUNE_DATA_ACCESS": settings.data_access.value}
    return RayJobLauncher(api, data=data, num_cpus=settings.num_cpus, variables=access)


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
    from spectune.service.api.context import Context  # FastAPI takes a second, which `spectune run` need not wait for
    from spectune.service.api.probes import RecentAnswer
    from spectune.service.findings.worker_output import read_output

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
        worker_output=lambda campaign_id, trial: read_output(data.output(campaign_id), trial=trial),
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
