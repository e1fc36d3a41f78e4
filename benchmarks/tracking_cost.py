"""Time what tracking costs a campaign, and what an MLflow that is ill costs it: nothing, for training never waits.

    python -m benchmarks.tracking_cost [--trials 8] [--steps 400] [--rounds 3] [--ways ...] [--json FILE]

A small transformer, which keeps both cores busy, is trained by a real `spectune serve` in a process of its own. In each
round every way takes its turn, with a data directory and a real `mlflow server` of its own on the same two cores:

    untracked   `spectune serve --no-tracking`
    healthy     the server answers
    down        it is down from the start, and comes when the campaign has ended
    outage      it is killed -9 when half the reports are there, and comes back after a minute
    refusing    it answers every third request with 500
    slow        it answers after ten seconds

Seconds go from the campaign's first report to its last, so that no start of Ray is in them; steps a second are those of
all trials in that time, and the ratio is theirs to the untracked campaign's of the same round. When the campaign has
ended, MLflow is waited for and compared with the ledger: runs, parameters and every point, no run twice, none RUNNING.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

from mlflow import MlflowClient

from service.ledger import ServiceLedger
from service.tracking.links import MLFLOW
from service.tracking.mlflow_tracker import EXPERIMENT
from tests.fakes.faulty_proxy import Fault, FaultyProxy
from tests.fakes.mlflow_content import assert_equals_ledger
from tests.fakes.mlflow_server import PrivateMlflow
from tests.integration.serving import Serving

WAYS: Final = ("untracked", "healthy", "down", "outage", "refusing", "slow")
OUTAGE_SECONDS: Final = 60.0
SLOW_SECONDS: Final = 10.0
REPORTS: Final = 20
_PATIENCE_SECONDS: Final = 900.0


def specification(*, num_trials: int, steps: int) -> dict[str, Any]:
    """Give the campaign: two arms without stopping, so that every way takes the same steps."""
    return {
        "name": "tracking-cost",
        "task": {"name": "language_model", "width": 48, "depth": 2, "heads": 4, "context": 64, "batch_size": 8}
        | {"steps": steps},
        "objective": {"metric": "validation_loss", "mode": "minimize", "every_steps": steps // REPORTS},
        "arms": [
            {"optimizer": "muon", "space": {"lr": {"log_uniform": [3e-3, 1e-1]}}},
            {"optimizer": "adamw", "space": {"lr": {"log_uniform": [3e-4, 1e-2]}}},
        ],
        "search": {"sampler": "random", "points": num_trials // 2},
        "resources": {"workers": 2, "cpus": 1},
    }


class Ill:
    """An MLflow server behind a way to it, which falls ill as it is told.

    Args:
        way: One of `WAYS`, but for `untracked`.
    """

    def __init__(self, way: str) -> None:
        self._way = way
        self.server = PrivateMlflow()
        delay_seconds = SLOW_SECONDS if way == "slow" else 0.0
        self._proxy = FaultyProxy(self.server.port, self._fault, delay_seconds=delay_seconds)
        self.address = self._proxy.address
        self._back: threading.Timer | None = None
        if way == "down":
            self.server.kill()

    def half_way(self) -> None:
        """Half of the reports are there."""
        if self._way == "outage":
            self.server.kill()
            self._back = threading.Timer(OUTAGE_SECONDS, self.server.start)
            self._back.start()

    def campaign_has_ended(self) -> None:
        """Get well, where that depends on it."""
        if self._way == "down":
            self.server.start()
        if self._back is not None:
            self._back.join()

    def remove(self) -> None:
        """End the server."""
        if self._back is not None:
            self._back.join()
        self._proxy.close()
        self.server.remove()

    def _fault(self, number: int, path: str) -> Fault:
        return Fault.REFUSED if self._way == "refusing" and number % 3 == 0 else Fault.NONE


def run(way: str, campaign: dict[str, Any], folder: Path) -> dict[str, float]:
    """Run a campaign; give its seconds, its steps a second and how many seconds later MLflow held everything."""
    ill = None if way == "untracked" else Ill(way)
    os.environ["SPECTUNE_MLFLOW_URI"] = "" if ill is None else ill.address
    serving = Serving(folder, *(["--no-tracking"] if ill is None else []))
    try:
        client = serving.client()
        campaign_id = client.submit(campaign)["id"]
        with ServiceLedger.at(serving.data.ledger) as ledger:
            return _watch(ledger, campaign_id, ill)
    finally:
        serving.remove()
        if ill is not None:
            ill.remove()


def _watch(ledger: ServiceLedger, campaign_id: str, ill: Ill | None) -> dict[str, float]:
    specified = ledger.campaign(campaign_id).specification
    num_reports = len(specified["arms"]) * specified["search"]["points"] * REPORTS
    _wait(lambda: ledger.campaign(campaign_id).sequence >= num_reports // 2)
    if ill is not None:
        ill.half_way()
    _wait(lambda: ledger.campaign(campaign_id).state.is_terminal)
    ended_at = time.monotonic()
    record, found = ledger.campaign(campaign_id), ledger.observations(campaign_id)
    assert record.state == "SUCCEEDED", f"the campaign must succeed: got {record.state}, {record.message}"
    assert len(found) == num_reports, f"{num_reports} reports were asked for: got {len(found)}"
    seconds = (max(each.produced_at for each in found) - min(each.produced_at for each in found)) / 1000
    steps = sum(trial.last_step for trial in ledger.trials(campaign_id))
    told = {"seconds": seconds, "steps_per_second": steps / seconds}
    if ill is None:
        return told
    ill.campaign_has_ended()
    _wait(lambda: ledger.cursor(MLFLOW, campaign_id) >= ledger.campaign(campaign_id).sequence)
    told["told_after"] = time.monotonic() - ended_at
    assert_equals_ledger(MlflowClient(ill.server.address), EXPERIMENT, ledger, campaign_id)
    return told


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {_PATIENCE_SECONDS:g} s")
        time.sleep(0.5)


def measure(ways: list[str], campaign: dict[str, Any], *, num_rounds: int) -> list[dict[str, Any]]:
    """Run every way in every round; give a line for each: medians, and its ratio to untracked."""
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(num_rounds):
        rounds.append({})
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            with tempfile.TemporaryDirectory() as folder:
                rounds[-1][way] = run(way, campaign, Path(folder))
            print(f"    round {number + 1}, {way}: {rounds[-1][way]}", file=sys.stderr, flush=True)
    lines = []
    for way in ways:
        line: dict[str, Any] = {"way": way}
        line |= {name: median(each[way][name] for each in rounds) for name in rounds[0][way]}
        if "untracked" in ways:
            ratios = [each[way]["steps_per_second"] / each["untracked"]["steps_per_second"] for each in rounds]
            line |= {"ratio": median(ratios), "lowest": min(ratios), "highest": max(ratios)}
        lines.append(line)
    return lines


def show(line: dict[str, Any]) -> str:
    """Write a line of the table."""
    told = f"{line['told_after']:.0f}" if "told_after" in line else ""
    ratio = f"{line['ratio']:.3f} ({line['lowest']:.3f} to {line['highest']:.3f})" if "ratio" in line else ""
    return f"{line['way']:10} {line['seconds']:9.1f} {line['steps_per_second']:9.1f} {told:>17} {ratio:>26}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ["SPECTUNE_DATABASE_URL"] = ""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its servers end with it
    campaign = specification(num_trials=arguments.trials, steps=arguments.steps)
    lines = measure(arguments.ways, campaign, num_rounds=arguments.rounds)
    print(f"{'MLflow':10} {'seconds':>9} {'steps/s':>9} {'told after, s':>17} {'ratio to untracked':>26}")
    for line in lines:
        print(show(line))
    if arguments.json is not None:
        machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        told = {"machine": machine, "rounds": arguments.rounds, "trials": arguments.trials, "steps": arguments.steps}
        arguments.json.write_text(json.dumps(told | {"lines": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
