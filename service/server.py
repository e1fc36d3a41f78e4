"""`spectune serve` as a process: API, reconciler, projection, Ray head and MLflow server, begun and ended together.

Drivers are not among them: they outlive the process and are found again by the next, and so does a Ray that has some.
"""

from __future__ import annotations

import ipaddress
import logging
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

import uvicorn

from spectune.service import app
from spectune.service.api import create_application
from spectune.service.api.context import LOCAL_OWNER, Context
from spectune.service.api.http_protocol import BoundedConnection
from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState
from spectune.service.campaign.model.submission import LIVE
from spectune.service.control.loop import Reconciler
from spectune.service.data_directory import DataDirectory
from spectune.service.driver.temporary_folder import ray_folder
from spectune.service.errors import IllegalTransitionError, LedgerError, ServiceError, SettingsError
from spectune.service.hosting.mlflow_server import MlflowServer
from spectune.service.hosting.ray_head import RayHead
from spectune.service.ledger import ServiceLedger
from spectune.service.ports import LastingLauncher
from spectune.service.settings import Settings
from spectune.service.web import add_pages

SUPERVISION_SECONDS = 5.0
DRAIN_SECONDS = 5
KEEP_ALIVE_SECONDS = 30  # clients forget an idle connection first, or one is closed under their next request
MOST_HEADER_BYTES = 64 * 1024
OPEN_FILES = 4096  # a thousand connections, the ledger's and those to Ray and MLflow
PAUSE_SECONDS = 60.0
END_SECONDS = 15.0

_log = logging.getLogger(__name__)


def serve(
    data: DataDirectory,
    settings: Settings,
    *,
    host: str,
    port: int,
    mlflow_port: int = 0,
    with_ray: bool = True,
    with_tracking: bool = True,
    stop_campaigns: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        data: Where everything is; no other service may have it.
        settings: What the environment says.
        host: Where to listen; anything but loopback needs API keys.
        port: Where to listen.
        mlflow_port: Where MLflow listens on loopback; 0 takes any free port.
        with_ray: Whether drivers are jobs of a Ray of the service's own, unless the settings name one; else each is a
            process with a Ray of its own.
        with_tracking: Whether MLflow is kept up to date, and served unless the settings name one.
        stop_campaigns: Whether campaigns are paused at the end; by default they go on.

    Raises:
        DataDirectoryError: Another process has the data directory.
        SettingsError: The address is public and there is no key, or Ray's folder cannot be made.
        LedgerError: The ledger cannot be opened.
    """
    if settings.ray_address is None:
        ray_folder()
    address = _address(host, port)
    alone = settings.database_url is None
    lock = _alone(data, address) if alone else data.replicated(served_at=address)
    with lock as is_last, app.service_ledger(data, settings) as ledger:
        check_door(ledger, host)
        if alone:
            ledger.take_over(owner=LOCAL_OWNER)
        holder = app.holder_of(data, address)
        ray = None
        if settings.ray_address is None and with_ray:
            ray = RayHead(data, num_cpus=settings.num_cpus, database_url=settings.database_url)
            ray.ensure()
        launcher = _launcher(data, settings, ray)
        reconciler = app.service_reconciler(data, ledger, settings, launcher, holder=holder)
        mlflow = MlflowServer(data, port=mlflow_port) if with_tracking and settings.mlflow_uri is None else None
        probes: dict[str, Callable[[], str | None]] = {"campaigns": reconciler.problem}
        if with_ray or settings.ray_address is not None:
            probes["ray"] = launcher.problem
        if mlflow is not None:
            mlflow.ensure()
            probes["mlflow"] = mlflow.problem
        elif with_tracking and settings.mlflow_uri is not None:
            probes["mlflow"] = app.mlflow_probe(settings.mlflow_uri)
            if (problem := probes["mlflow"]()) is not None:
                _log.warning("campaigns go on without MLflow until it can be used: %s", problem)
        follower, pages = None, None
        if with_tracking:
            shown_at = settings.mlflow_pages or settings.mlflow_uri or (mlflow.address if mlflow else "")
            pages = app.service_pages(data, settings, shown_at)
            follower = app.service_follower(data, ledger, settings, shown_at, holder=holder)
            probes["tracking"] = follower.problem
            follower.start()
        context = app.service_context(data, ledger, settings, wake=reconciler.wake, pages=pages, probes=probes)
        with _running(reconciler), _supervised([each for each in (ray, mlflow) if each is not None]):
            _answer(context, host, port)
            if stop_campaigns:
                _pause_all(ledger, reconciler)
        if follower is not None:
            follower.end(timeout_seconds=END_SECONDS)
        if is_last():
            if mlflow is not None:
                mlflow.stop()
            if ray is not None and not _has_drivers(ledger):
                ray.stop()


class _Standing(Protocol):
    """What is started again when it dies."""

    def ensure(self) -> None:
        """Start it, unless it runs."""


@contextmanager
def _alone(data: DataDirectory, address: str) -> Iterator[Callable[[], bool]]:
    """Have the data directory alone; the question whether this is the last replica is settled then."""
    with data.locked(served_at=address):
        yield lambda: True


def _launcher(data: DataDirectory, settings: Settings, ray: RayHead | None) -> LastingLauncher:
    if ray is not None:
        return app.local_ray_launcher(data, settings, address=lambda: ray.address, token=ray.token())
    return (
        app.process_launcher(data, settings) if settings.ray_address is None else app.cluster_launcher(data, settings)
    )


def _has_drivers(ledger: ServiceLedger) -> bool:
    """Return whether a campaign may have a driver; if nobody can tell, it may."""
    try:
        return any(each.campaign.state is not CampaignState.QUEUED for each in ledger.live_submissions())
    except LedgerError:
        return True


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def check_door(ledger: ServiceLedger, host: str) -> None:
    """Make sure that nobody without a key comes in from outside.

    Raises:
        SettingsError: The address is public and there is no key.
    """
    if not is_loopback(host) and not ledger.has_keys():
        raise SettingsError(
            f"without API keys the service listens on loopback alone (make one: spectune keys create): got {host!r}"
        )


def server_config(
    context: Context, host: str, port: int, *, connection: type[BoundedConnection] = BoundedConnection
) -> uvicorn.Config:
    """Return how requests are taken: a client that never ends holds bounded bytes, seconds and connections."""
    application = create_application(context)
    add_pages(application)
    return uvicorn.Config(
        application,
        host=host,
        port=port,
        log_config=None,
        server_header=False,
        http=connection,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def allow_open_files(wanted: int = OPEN_FILES) -> None:
    """Let this process open enough files at once, or as many as the machine lets it, and say so then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        _log.warning("many connections need %d open files (ulimit -n): got %d", wanted, allowed)


def _answer(context: Context, host: str, port: int) -> None:
    """Answer requests until a signal."""
    allow_open_files()
    config = server_config(context, host, port)
    _log.info("the service listens on %s", _address(host, port))
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        uvicorn.Server(config).run()  # raises the signal that ended it once more, which must not end us here
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _running(reconciler: Reconciler) -> Iterator[None]:
    thread = threading.Thread(target=reconciler.run, name="reconciler", daemon=True)
    thread.start()
    try:
        yield
    finally:
        reconciler.end()
        thread.join(END_SECONDS)


@contextmanager
def _supervised(standing: Sequence[_Standing]) -> Iterator[None]:
    """Replace what dies: the MLflow server, the Ray head."""
    ending = threading.Event()

    def supervise() -> None:
        while not ending.wait(SUPERVISION_SECONDS):
            for each in standing:
                try:
                    each.ensure()
                except (OSError, ServiceError):
                    _log.exception("what the service needs cannot be started")

    thread = threading.Thread(target=supervise, name="supervision", daemon=True)
    if standing:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        if standing:
            thread.join(END_SECONDS)


def _pause_all(ledger: ServiceLedger, reconciler: Reconciler) -> None:
    """Pause every campaign and wait until none runs."""
    for submission in ledger.live_submissions():
        with suppress(IllegalTransitionError):
            message = "the service was stopped"
            ledger.move_campaign(submission.campaign_id, CampaignEvent.PAUSE, reason="service_stopped", message=message)
    deadline = time.monotonic() + PAUSE_SECONDS
    while time.monotonic() < deadline and any(
        each.campaign.state in LIVE and each.campaign.state is not CampaignState.QUEUED
        for each in ledger.live_submissions()
    ):
        reconciler.wake()
        time.sleep(0.5)
