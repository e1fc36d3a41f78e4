"""The Ray that an attempt trains on: one of its own, or the cluster that RAY_ADDRESS names.

A Ray of its own has exactly the CPUs that the campaign's slots need and the GPUs of this machine. In a cluster, whose
token is in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, slots are placed wherever there is room; every node needs the same
installation and sees the data directory at the same path.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.node import Node

from service.campaign.sections import ResourcesSection
from service.driver.environment import worker_environment
from service.errors import Problem, SpecificationError

_OBJECT_STORE_BYTES = 100 * 1024**2  # verdicts and reports are small; data are memory-mapped files


@contextmanager
def ray_for(resources: ResourcesSection, *, is_job: bool) -> Iterator[None]:
    """Start a Ray, or join one, for as long as the context lasts.

    Args:
        resources: What the campaign's workers need.
        is_job: Whether this process is a job of the cluster: what workers need is in the job's own environment then.

    Raises:
        SpecificationError: No machine of the cluster has what a worker needs.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address:
        environment = {} if is_job else {"runtime_env": {"env_vars": worker_environment()}}
        ray.init(address=address, **environment, **_QUIET)
    else:
        own = {"num_cpus": resources.workers * resources.cpus, "object_store_memory": _OBJECT_STORE_BYTES}
        no_gpus = {} if resources.gpus else {"num_gpus": 0}
        with _bare_head():
            ray.init(address="local", include_dashboard=False, **own, **no_gpus, **_QUIET)
    try:
        _refuse_what_fits_nowhere(resources)
        yield
    finally:
        gc.collect()  # an actor's handle that another thread collects while Ray shuts down would end this process
        ray.shutdown()


class _BareNode(Node):  # type: ignore[misc]
    """A head without the processes that serve people, grow a cluster and forward logs.

    Nobody asks them anything here, and each is a second of a processor at the start of a campaign. `ray.init` has no
    option for this (its `include_dashboard=False` starts the dashboard's process all the same, and waits for it).
    """

    def __init__(self, ray_params: Any, **options: Any) -> None:
        ray_params.no_monitor, ray_params.include_log_monitor = True, False
        super().__init__(ray_params, **options)

    def start_api_server(self, **_: Any) -> None:
        """Start no dashboard."""


@contextmanager
def _bare_head() -> Iterator[None]:
    """Let `ray.init` start a head with the processes alone that it needs."""
    ray._private.node.Node = _BareNode
    try:
        yield
    finally:
        ray._private.node.Node = Node


_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}


def _refuse_what_fits_nowhere(resources: ResourcesSection) -> None:
    """Refuse a worker that would wait for ever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for option, kind, needed in (("cpus", "CPU", resources.cpus), ("gpus", "GPU", resources.gpus)):
        largest = max((machine.get(kind, 0.0) for machine in machines), default=0.0)
        if needed > largest:
            message = f"no machine has so many for a worker; the largest has {largest:g}"
            raise SpecificationError([Problem(f"/resources/{option}", message, needed)])
