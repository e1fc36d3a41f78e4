"""What a worker is given, and what a campaign asks for that nobody has."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT

from spectune.service.campaign.specification.catalog import Catalog, installed_catalog
from spectune.service.campaign.specification.specification import parse
from spectune.service.driver.arms import make_arms
from spectune.service.driver.assignments import AssignmentMaker
from spectune.service.driver.environment import driver_environment, own_ray_environment, worker_environment
from spectune.service.errors import SpecificationError
from spectune.trainers.worker.ray_cohort import placement
from spectune.trainers.worker.slot import SlotOptions
from tests.fakes.slots import specification


def with_gpus(number: int | None) -> Catalog:
    return dataclasses.replace(installed_catalog(), num_gpus=number)


def asked(**resources: Any) -> dict[str, Any]:
    return specification().document() | {"resources": resources}


@pytest.mark.parametrize(("workers", "gpus", "there"), [(4, 0.25, 1), (2, 1, 2), (64, 0.5, None), (3, 0, 0)])
def test_gpus_and_parts_of_them_may_be_asked_for_where_they_are(workers: int, gpus: float, there: int | None) -> None:
    campaign = parse(asked(workers=workers, gpus=gpus), catalog=with_gpus(there))
    (trial, *_) = make_arms(campaign)[0].draw()
    setting = AssignmentMaker(campaign).assignment(trial, is_alone=False).setting
    assert setting.device == ("cuda" if gpus else "cpu")


def test_more_gpus_than_there_are_would_be_waited_for_for_ever() -> None:
    with pytest.raises(SpecificationError, match=r"/resources/gpus: this machine has 1 for all 5 workers: got 0\.25"):
        parse(asked(workers=5, gpus=0.25), catalog=with_gpus(1))


@pytest.mark.parametrize(("gpus", "bundle"), [(0.0, {"CPU": 2.0}), (0.25, {"CPU": 2.0, "GPU": 0.25})])
def test_a_slot_takes_its_part_of_a_gpu_and_shuns_machines_in_quarantine(gpus: float, bundle: dict[str, float]) -> None:
    options = SlotOptions("", "", 10.0, cpus=2, gpus=gpus)
    assert placement(options, []).bundles == [bundle]
    bound = placement(options, ["a", "b"])._bound.arguments
    assert bound["bundle_label_selector"] == [{"ray.io/node-id": "!in(a,b)"}]


def test_a_second_of_a_part_of_a_gpu_costs_that_part(tmp_path: Path) -> None:
    assert SlotOptions(str(tmp_path), "", 10.0, cpus=2, gpus=0.25).num_devices == 0.25
    assert SlotOptions(str(tmp_path), "", 10.0, cpus=2).num_devices == 1.0


def test_a_cluster_has_its_own_token_and_its_workers_get_what_they_cannot_inherit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert {"RAY_AUTH_TOKEN", "RAY_AUTH_MODE"} <= driver_environment().keys()
    assert driver_environment()["RAY_AUTH_TOKEN"] != driver_environment()["RAY_AUTH_TOKEN"]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not {"RAY_AUTH_TOKEN", "RAY_AUTH_MODE"} & driver_environment().keys()
    assert own_ray_environment()["RAY_AUTH_MODE"] == "token", "a service's own Ray was open where RAY_ADDRESS was set"
    assert worker_environment()["RAY_CHDIR_TO_TRIAL_DIR"] == "0"
    assert not any(name.startswith("RAY_AUTH") for name in worker_environment())


OWN_RAY = """
import ray
from spectune.service.campaign.specification.sections import ResourcesSection
from spectune.service.driver.cluster import ray_for
with ray_for(ResourcesSection(workers=1, cpus=1), is_job=False):
    node = ray._private.worker._global_node
    print(node.dashboard_agent_listen_port, sorted(node.all_processes))
"""


@pytest.mark.slow
def test_a_ray_of_its_own_serves_nobody_and_asks_for_no_port_that_another_may_have() -> None:
    """Where the port was taken that Ray gives every agent, a campaign began four seconds later."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | own_ray_environment()
    command = [sys.executable, "-c", OWN_RAY]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    port, _, processes = told.strip().partition(" ")
    assert port.isdigit()
    assert int(port) not in (0, DEFAULT_DASHBOARD_AGENT_LISTEN_PORT)
    assert processes == "['gcs_server', 'raylet']"
