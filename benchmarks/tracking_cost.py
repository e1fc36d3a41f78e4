"""Time what tracking costs a campaign, and what an MLflow that is ill costs it: nothing, for training never waits.

    python -m benchmarks.tracking_cost [--trials 4] [--steps 160] [--rounds 4] [--ways ...] [--json FILE]

A small transformer, which keeps both cores busy, is trained by a real `spectune serve`: one with `--no-tracking`, and
one that writes over HTTP into a real `mlflow server` on the same two cores. Their campaigns are short and take turns,
so that whatever else the machine does meets all of them; in each round every way has one and `untracked` has two. (A
campaign's runs are made once, so what is told of a short one costs more of its time: more `--steps` say what goes on.)

    untracked   `spectune serve --no-tracking`
    healthy     the server answers
    down        it is down from the start, and comes when the campaign has ended
    outage      it is killed -9 in a batch when half of the reports are there, and comes when the campaign has ended
    refusing    it answers every third request with 500
    slow        it answers after ten seconds

Seconds go from the campaign's first report to its last, so that no start of Ray is in them; steps a second are those of
all trials in that time. As a machine's speed changes from minute to minute, it is also counted how much of all
processors' time the processes that train have had from an eighth of the reports to seven eighths (`training`), which is
less where they wait for anything or share a processor, whatever its speed. Ratios are to the mean of the untracked
campaigns of the same round; the table has their mean over the rounds and its standard error. `share` is what the
service and MLflow take of all processors' time beyond a service without tracking. When a campaign has ended the server
gets well, is waited for and compared with the ledger: runs, parameters and every point, no run twice, none RUNNING.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Final

import psutil
from mlflow import MlflowClient

from benchmarks.kept import keep_lines
from spectune.service.ledger import ServiceLedger
from spectune.service.tracking.links import ATTACHMENTS
from spectune.service.tracking.mlflow_tracker import EXPERIMENT
from tests.fakes.ill_mlflow import WAYS, IllMlflow
from tests.fakes.mlflow_content import assert_equals_ledger
from tests.integration.serving import Serving

UNTRACKED: Final = "untracked"
RATIOS: Final = ("steps_per_second_ratio", "training_ratio")
REPORTS: Final = 20
_PATIENCE_SECONDS: Final = 600.0


def specification(*, num_trials: int, steps: int) -> dict[str, Any]:
    """Return the campaign: two arms without stopping, so that every way takes the same steps."""
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


class Services:
    """A service without tracking and one with, on one machine.

    Args:
        folder: Where both keep their data.
    """

    def __init__(self, folder: Path) -> None:
        self._ill = IllMlflow()
        self._services: dict[bool, Serving] = {}
        for is_tracked in (False, True):
            environment = {"SPECTUNE_MLFLOW_URI": self._ill.address if is_tracked else ""}
            options = [] if is_tracked else ["--no-tracking"]
            self._services[is_tracked] = Serving(
                folder / ("tracked" if is_tracked else UNTRACKED), *options, environment=environment
            )

    def run(self, way: str, campaign: dict[str, Any]) -> dict[str, float]:
        """Run a campaign; give its seconds, its steps a second and how many seconds later MLflow held everything."""
        serving = self._services[way != UNTRACKED]
        client, num_reports = serving.client(), len(campaign["arms"]) * campaign["search"]["points"] * REPORTS
        serving.wait_until_ready()
        self._ill.begin(way)
        try:
            campaign_id = client.submit(campaign)["id"]
            with ServiceLedger.at(serving.data.ledger) as ledger:

                def has(reports: float) -> bool:
                    return len(ledger.observations(campaign_id)) >= reports

                _wait(lambda: has(1))
                telling = ProcessorTime(lambda: self._processes(serving))
                _wait(lambda: has(num_reports / 8), telling.look)  # every slot trains
                training = ProcessorTime(_slots)
                _wait(lambda: has(num_reports / 2), telling.look, training.look)
                self._ill.half_way()
                _wait(lambda: has(num_reports * 7 / 8), telling.look, training.look)  # none has ended
                _wait(lambda: ledger.campaign(campaign_id).state.is_terminal, telling.look)
                ended_at = time.monotonic()
                told = _pace(ledger, campaign_id, num_reports)
                told |= {"service_and_mlflow": telling.part(), "training": training.part()}
                self._ill.end()
                if way != UNTRACKED:
                    _wait(lambda: ledger.cursor(ATTACHMENTS, campaign_id) >= ledger.campaign(campaign_id).sequence)
                    told["told_after"] = time.monotonic() - ended_at
                    assert_equals_ledger(MlflowClient(self._ill.server.address), EXPERIMENT, ledger, campaign_id)
                return told
        finally:
            self._ill.end()

    def _processes(self, serving: Serving) -> Iterator[psutil.Process]:
        yield psutil.Process(serving.process.pid)
        yield from self._ill.server.processes()

    def remove(self) -> None:
        """End everything."""
        for serving in self._services.values():
            serving.remove()
        self._ill.remove()


def _slots() -> Iterator[psutil.Process]:
    """Find the processes that train; nothing else on this machine may."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, IndexError):
            if process.cmdline()[0].startswith(("ray::CohortSlot", "ray::ResourceTrainable")):  # at rest, and training
                yield process


class ProcessorTime:
    """The processors' time of some processes, as a part of what all processors have; those that end are counted too.

    Args:
        processes: Gives those that live.
    """

    def __init__(self, processes: Callable[[], Iterator[psutil.Process]]) -> None:
        self._processes = processes
        self._began_at = self._seen_at = time.monotonic()
        self._first: dict[psutil.Process, float] = {}
        self._last: dict[psutil.Process, float] = {}
        self.look()
        self._first = dict(self._last)

    def look(self) -> None:
        """Read the clocks of those that live."""
        self._seen_at = time.monotonic()
        for process in self._processes():
            with suppress(psutil.Error):
                times = process.cpu_times()
                self._last[process] = times.user + times.system

    def part(self) -> float:
        """Return the part of all processors' time between the first look and the last."""
        used = sum(seconds - self._first.get(process, 0.0) for process, seconds in self._last.items())
        return used / ((os.cpu_count() or 1) * (self._seen_at - self._began_at))


def _pace(ledger: ServiceLedger, campaign_id: str, num_reports: int) -> dict[str, float]:
    record, found = ledger.campaign(campaign_id), ledger.observations(campaign_id)
    assert record.state == "SUCCEEDED", f"the campaign must succeed: got {record.state}, {record.message}"
    assert len(found) == num_reports, f"{num_reports} reports were asked for: got {len(found)}"
    seconds = (max(each.produced_at for each in found) - min(each.produced_at for each in found)) / 1000
    return {
        "seconds": seconds,
        "steps_per_second": sum(each.last_step for each in ledger.trials(campaign_id)) / seconds,
    }


def _wait(condition: Callable[[], bool], *looks: Callable[[], None]) -> None:
    """Wait until something is so, and look at clocks as often as at it."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        for look in looks:
            look()
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {_PATIENCE_SECONDS:g} s")
        time.sleep(0.5)


def measure(ways: list[str], campaign: dict[str, Any], *, num_rounds: int) -> list[dict[str, Any]]:
    """Run every way in every round; give a line for each: medians, and its ratio to untracked."""
    told: dict[str, list[list[dict[str, float]]]] = {way: [] for way in (UNTRACKED, *ways)}
    with tempfile.TemporaryDirectory() as folder:
        services = Services(Path(folder))
        try:
            for way in (UNTRACKED, "healthy"):
                services.run(way, campaign)  # the first of each reads files that the others find in memory
            for number in range(num_rounds):
                for each in told.values():
                    each.append([])
                turned = ways[number % len(ways) :] + ways[: number % len(ways)]
                middle = (len(ways) + 1) // 2
                for way in (UNTRACKED, *turned[:middle], UNTRACKED, *turned[middle:]):
                    told[way][-1].append(services.run(way, campaign))
                    print(f"    round {number + 1}, {way}: {told[way][-1][-1]}", file=sys.stderr, flush=True)
        finally:
            services.remove()
    return [_line(way, told[way], told[UNTRACKED]) for way in told]


def _line(way: str, told: list[list[dict[str, float]]], untracked: list[list[dict[str, float]]]) -> dict[str, Any]:
    line: dict[str, Any] = {"way": way}
    line |= {name: median(each[name] for some in told for each in some) for name in told[0][0]}
    for name in ("steps_per_second", "training") if way != UNTRACKED else ():
        ratios = [_mean(one, name) / _mean(other, name) for one, other in zip(told, untracked, strict=True)]
        error = stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.nan
        line[f"{name}_ratio"] = {"mean": mean(ratios), "error": error, "range": [min(ratios), max(ratios)]}
    if way != UNTRACKED:
        ours, theirs = (mean(_mean(some, "service_and_mlflow") for some in all_of) for all_of in (told, untracked))
        line["share"] = ours - theirs
    return line


def _mean(some: list[dict[str, float]], name: str) -> float:
    return mean(each[name] for each in some)


def show(line: dict[str, Any]) -> str:
    """Write a line of the table."""
    told = f"{line['told_after']:.0f}" if "told_after" in line else ""
    seconds = f"{line['way']:10} {line['seconds']:9.1f} {line['steps_per_second']:9.1f} {told:>14}"
    if "share" not in line:
        return seconds
    pace, training = (f"{line[name]['mean']:.3f} ± {line[name]['error']:.3f}" for name in RATIOS)
    return f"{seconds} {pace:>18} {training:>18} {line['share']:>8.2%}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ["SPECTUNE_DATABASE_URL"] = ""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its servers end with it
    campaign = specification(num_trials=arguments.trials, steps=arguments.steps)
    lines = measure(arguments.ways, campaign, num_rounds=arguments.rounds)
    heads = f"{'MLflow':10} {'seconds':>9} {'steps/s':>9} {'told after, s':>14}"
    print(f"{heads} {'pace / untracked':>18} {'training / untr.':>18} {'share':>8}")
    for line in lines:
        print(show(line))
    if arguments.json is not None:
        told = {"rounds": arguments.rounds, "trials": arguments.trials, "steps": arguments.steps}
        keep_lines(arguments.json, [line | told for line in lines], of=("way", "trials", "steps"))


if __name__ == "__main__":
    main()
