"""The Ray that an attempt trains on: one of its own, or the cluster that RAY_ADDRESS names.

A Ray of its own has exactly the CPUs that the campaign's slots need and the GPUs of this machine. In a cluster, whose
token is in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, slots are placed wherever there is room; every node needs the same
installation and sees the data directory at the same path.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray._private.node import Node
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.exceptions import RpcError

from spectune.service.campaign.specification.sections import ResourcesSection
from spectune.service.driver.environment import worker_environment
from spectune.service.driver.temporary_folder import SessionFolder, remove_dead_sessions
from spectune.service.errors import ClusterAwayError

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 120.0
_ANSWER_SECONDS = 2.0
_LOOK_SECONDS = 0.02
_TRIES = 5
_OBJECT_STORE_BYTES = 100 * 1024**2  # commands and reports are small; data are memory-mapped files


@contextmanager
def ray_for(resources: ResourcesSection, *, is_job: bool) -> Iterator[None]:
    """Start a Ray, or join one, for as long as the context lasts.

    Args:
        resources: What the campaign's workers need.
        is_job: Whether this process is a job of the cluster: what workers need is in the job's own environment then.

    Raises:
        ClusterAwayError: Nothing answers at RAY_ADDRESS.
    """
    address = os.environ.get("RAY_ADDRESS")
    session: SessionFolder | None = None
    if address:
        environment = {} if is_job else {"runtime_env": {"env_vars": worker_environment()}}
        try:
            ray.init(address=address, **environment, **_QUIET)
        except ConnectionError as error:
            raise ClusterAwayError(f"no cluster answers at RAY_ADDRESS ({error}): got {address!r}") from error
    else:
        own = {"num_cpus": resources.workers * resources.cpus, "object_store_memory": _OBJECT_STORE_BYTES}
        no_gpus = {} if resources.gpus else {"num_gpus": 0}
        remove_dead_sessions()
        session = SessionFolder()
        _start_own(session, **own, **no_gpus)
    try:
        yield
    finally:
        gc.collect()  # an actor's handle that another thread collects while Ray shuts down would end this process
        ray.shutdown()
        if session is not None:
            session.remove()


class _BareNode(Node):  # type: ignore[misc]
    """A head without the processes that serve people, grow a cluster and forward logs.

    Nobody asks them anything here, and each is a second of a processor at the start of a campaign. `ray.init` has no
    option for this (its `include_dashboard=False` starts the dashboard's process all the same, and waits for it).
    """

    def __init__(self, ray_params: Any, **options: Any) -> None:
        ray_params.no_monitor, ray_params.include_log_monitor = True, False
        ray_params.dashboard_agent_listen_port = 0  # any: beside another Ray the usual one costs four seconds
        try:
            super().__init__(ray_params, **options)
        except Exception:
            self.kill_all_processes(check_alive=False, allow_graceful=False)
            raise

    def start_api_server(self, **_: Any) -> None:
        """Start no dashboard."""

    def start_ray_processes(self) -> None:
        """Start the others, and wait for the raylet, which ends where its agents take longer than it bears (15 s).

        Ray would wait, too, but look once a second.
        """
        super().start_ray_processes()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._is_there():
            for name, (information,) in self.all_processes.items():
                if information.process.poll() is not None:
                    raise _NotStartedError(f"the {name} ended while it started: got {information.process.returncode}")
            if time.monotonic() > deadline:
                raise _NotStartedError(f"the raylet took longer than {_PATIENCE_SECONDS:g} s to start")
            time.sleep(_LOOK_SECONDS)

    def _is_there(self) -> bool:
        """Whether the head knows a node, which can only be this one; not so where the head does not answer at once."""
        with suppress(RpcError):
            alive = GcsNodeInfo.GcsNodeState.ALIVE
            return bool(self.get_gcs_client().get_all_node_info(timeout=_ANSWER_SECONDS, state_filter=alive))
        return False


class _NotStartedError(Exception):
    """Ray did not start on this machine, which may be overloaded."""


def _start_own(session: SessionFolder, **options: Any) -> None:
    """Start a Ray of one's own; on an overloaded machine it may take more than one try."""
    for tries_left in reversed(range(_TRIES)):
        try:
            with _bare_head():
                ray.init(address="local", include_dashboard=False, _temp_dir=str(session.path), **options, **_QUIET)
        except _NotStartedError as error:
            if not tries_left:
                raise
            _log.warning("Ray is started once more: %s", error)
        else:
            return


@contextmanager
def _bare_head() -> Iterator[None]:
    """Let `ray.init` start a head with the processes alone that it needs."""
    ray._private.node.Node = _BareNode
    try:
        yield
    finally:
        ray._private.node.Node = Node


_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}


def living_machines() -> list[dict[str, float]]:
    """Return what each living machine of the Ray that was joined has in all."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
