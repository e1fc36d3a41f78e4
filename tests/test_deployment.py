"""What docker-compose.yml describes fits together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

COMPOSE: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "docker-compose.yml").read_text(encoding="utf-8"))
RAY_NODES = {
    name: each for name, each in COMPOSE["services"].items() if each.get("command", [""])[:2] == ["ray", "start"]
}
MOST_SECONDS_OF_SILENCE = 20.0


def option(node: dict[str, Any], name: str) -> str:
    """Return the value of an option of a node's command."""
    (found,) = [word.partition("=")[2] for word in node["command"] if word.startswith(f"--{name}=")]
    return str(found)


def test_there_are_a_head_and_workers() -> None:
    assert set(RAY_NODES) == {"ray-head", "ray-worker"}


@pytest.mark.parametrize("name", RAY_NODES)
def test_the_object_store_fits_into_shared_memory(name: str) -> None:
    size = RAY_NODES[name]["shm_size"]
    assert size.endswith("gb")
    available = int(size.removesuffix("gb")) * 2**30
    assert 2 * int(option(RAY_NODES[name], "object-store-memory")) <= available


@pytest.mark.parametrize("name", RAY_NODES)
def test_a_node_that_falls_silent_is_given_up_in_time(name: str) -> None:
    environment = RAY_NODES[name]["environment"]
    period, timeout = (int(environment[f"RAY_health_check_{each}_ms"]) / 1000 for each in ("period", "timeout"))
    failures = int(environment["RAY_health_check_failure_threshold"])
    assert failures >= 3, "one lost answer is no death"
    assert failures * (period + timeout) <= MOST_SECONDS_OF_SILENCE
