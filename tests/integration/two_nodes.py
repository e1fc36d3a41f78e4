"""A Ray cluster of two machines on this one, in a process of its own: `python -m tests.integration.two_nodes`.

It prints where the cluster is and the process id of the second machine's raylet, and ends when its standard input
closes. The token is the one in its environment. With `--late` the first machine has no CPU, and the second one comes
when a line is written to its standard input.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).parents[2]
MEMORY_BYTES = 100 * 2**20
LOOPBACK = "127.0.0.2"  # Ray takes 127.0.0.1 for another name of the address by which others reach this machine

VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "500",  # a machine is given up after five; Ray's own 3 s only make the test wait
}


class TwoNodes:
    """A cluster of two machines with one CPU each, while the context lasts.

    Args:
        is_late: Whether the first machine has no CPU, and the second one comes later.

    Attributes:
        variables: What a driver needs in its environment to join it.
    """

    def __init__(self, *, is_late: bool = False) -> None:
        self._options = ["--late"] if is_late else []

    def __enter__(self) -> TwoNodes:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.two_nodes", *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | token | VARIABLES,
        )
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline())
        if not self._options:
            self._raylet = psutil.Process(told["raylet"])
        self._family = psutil.Process(self._process.pid).children(recursive=True)
        self.variables = token | {"RAY_ADDRESS": told["address"]}
        return self

    def add_second(self) -> None:
        """Let the second machine come."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill_second(self) -> list[psutil.Process]:
        """Kill the raylet of the machine on which no driver is; give the processes that must vanish with it."""
        family: list[psutil.Process] = self._raylet.children(recursive=True)
        self._raylet.kill()
        return family

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        grown = psutil.Process(self._process.pid).children(recursive=True)
        self._process.communicate(timeout=60)
        self._family = [*{*self._family, *grown}]
        _, alive = psutil.wait_procs(self._family, timeout=10)
        for process in alive:
            process.kill()


def main() -> None:
    """Start the cluster and keep it."""
    from ray.cluster_utils import Cluster

    machine = {"num_cpus": 1, "object_store_memory": MEMORY_BYTES, "node_ip_address": LOOPBACK}
    nobody_asks = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
    is_late = "--late" in sys.argv
    first = machine | nobody_asks | ({"num_cpus": 0} if is_late else {})
    cluster = Cluster(initialize_head=True, head_node_args=first)
    if is_late:
        print(json.dumps({"address": cluster.address}), flush=True)
        if sys.stdin.readline():
            cluster.add_node(**machine)
            sys.stdin.read()
        cluster.shutdown()
        return
    second = cluster.add_node(**machine)
    (raylet,) = second.all_processes["raylet"]
    print(json.dumps({"address": cluster.address, "raylet": raylet.process.pid}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
