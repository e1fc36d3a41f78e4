"""Time the way of metric points into MLflow: our projector beside Ray's MLflowLoggerCallback, the same points.

    python -m benchmarks.tracking [--trials 100] [--rounds 3] [--workers 4] [--json FILE]

Trials of 20 and of 140 reports, each with the eleven metrics that a trial of muon reports, go into

    a file                  as `spectune run` writes it
    spectune serve's        a real `mlflow server` on SQLite, started as `spectune serve` starts it: a service writes
                            the file of its own server, Ray's callback can only ask the server
    mlflow server, SQLite   somebody else's, over HTTP, with as many workers as `mlflow server` starts by itself
    mlflow server, Postgres where Debian's PostgreSQL is installed

In each round every line takes its turn; ours projects a campaign that stands in a ledger, reading it, making the runs
and ending them included. Ray's callback writes one trial of 20 reports a round: it takes a request or more for every
point, so that its rate does not depend on their number; the point `training_iteration` that it adds to each report is
counted as one of its own. What ours has written is counted afterwards, by asking the server. Of a line the median of
the rounds is shown, of a ratio the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from mlflow import MlflowClient
from ray.air.integrations.mlflow import MLflowLoggerCallback

from benchmarks.kept import keep
from spectune.service.campaign.model.lifecycle import CampaignEvent, TrialState
from spectune.service.campaign.specification.specification import parse
from spectune.service.ledger import Ledger, entries
from spectune.service.ledger.spool import Record
from spectune.service.tracking.mlflow_tracker import EXPERIMENT, MlflowTracker
from spectune.service.tracking.naming import metric_name
from spectune.service.tracking.projector import Projector
from tests.fakes.mlflow_content import points_of, runs_of
from tests.fakes.mlflow_server import PrivateMlflow
from tests.fakes.postgres import PrivatePostgres, find_binaries

NUM_REPORTS: Final = (20, 140)
_REPORTS_OF_CALLBACK: Final = 20
METRICS: Final = {
    "loss": 0.5,
    "validation_loss": 0.25,
    "observed_loss": 0.4,
    "lr": 0.01,
    "step_time_seconds": 1e-4,
    "throughput": 1e4,
    "optimizer_share": 0.5,
    "timing_valid": 0.0,
    "spectral/nuclear_norm": 30.0,
    "spectral/orthogonality_error": 0.01,
    "spectral/update_rms": 0.2,
}
_PRODUCED_AT: Final = 1_700_000_000_000
_CONFIG: Final = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.01}


@dataclass
class Line:
    """A line of the table.

    Attributes:
        place: Where the points go.
        address: Where ours writes.
        server: Where Ray's callback writes, and where the points are counted; None for no server.
        num_reports: Of a trial.
        num_trials: Of ours.
        ours: Points a second in each round.
        callback: Points a second of Ray's callback in each round.
    """

    place: str
    address: str
    server: str | None
    num_reports: int
    num_trials: int
    ours: list[float] = field(default_factory=list)
    callback: list[float] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """Return medians and the median ratio."""
        told = {"place": self.place, "reports": self.num_reports, "trials": self.num_trials}
        told |= {"points": self.num_trials * self.num_reports * len(METRICS), "ours": median(self.ours)}
        if self.callback:
            ratios = [one / other for one, other in zip(self.ours, self.callback, strict=True)]
            told |= {"callback": median(self.callback), "ratio": median(ratios)}
        return told


class RayTrial:
    """What the callback reads of a trial of Ray Tune's."""

    config = _CONFIG

    def __str__(self) -> str:
        return "train_00000"


def enter(ledger: Ledger, campaign_id: str, *, num_trials: int, num_reports: int) -> None:
    """Enter a campaign that has ended."""
    document = {
        "name": "tracking",
        "task": {"name": "matrix_completion", "rows": 8, "columns": 6, "rank": 1, "steps": num_reports * 10},
        "objective": {"metric": "validation_loss", "mode": "minimize", "every_steps": 10},
        "arms": [{"optimizer": "muon", "space": {"lr": {"log_uniform": [1e-3, 1.0]}}}],
        "search": {"sampler": "random", "points": num_trials},
    }
    ledger.create_campaign(campaign_id, name="tracking", specification=parse(document).document())
    attempt = ledger.begin_attempt(campaign_id)
    ledger.move_campaign(campaign_id, CampaignEvent.LAUNCH, reason="launching")
    ledger.move_campaign(campaign_id, CampaignEvent.CLAIM, reason="driver_started")
    records = [record for trial in range(num_trials) for record in _records(trial, num_reports)]
    ledger.append(campaign_id, attempt, list(enumerate(records, start=1)))
    ledger.move_campaign(campaign_id, CampaignEvent.SUCCEED, reason="all_trials_ended")


def _records(trial: int, num_reports: int) -> Iterator[Record]:
    place: dict[str, Any] = {"arm": 0, "point": trial, "seed_index": 0, "ask": {}}
    yield entries.trial_created(trial=trial, config=_CONFIG, at=_PRODUCED_AT, **place)
    for step in range(10, 10 * num_reports + 1, 10):
        told: dict[str, Any] = {"metrics": METRICS, "objective": METRICS["validation_loss"]}
        yield entries.observation(trial=trial, step=step, device_seconds=0.1, produced_at=_PRODUCED_AT + step, **told)
    at = _PRODUCED_AT + 10 * num_reports
    yield entries.trial_moved(trial=trial, state=TrialState.COMPLETED, reason="end_of_schedule", at=at)


def time_ours(line: Line, number: int) -> float:
    """Project a campaign; give points a second."""
    with tempfile.TemporaryDirectory() as folder, Ledger.at(Path(folder) / "ledger.sqlite") as ledger:
        campaign_id = f"tracking-{number}"
        enter(ledger, campaign_id, num_trials=line.num_trials, num_reports=line.num_reports)
        tracker = MlflowTracker.connect(line.address, address=line.address)
        tracker.experiment_id()  # the store is opened, which is not what is timed
        start = time.perf_counter()
        Projector(ledger, tracker, campaign_id).catch_up()
        seconds = time.perf_counter() - start
    check(line, campaign_id)
    return line.num_trials * line.num_reports * len(METRICS) / seconds


def check(line: Line, campaign_id: str) -> None:
    """Count what MLflow shows: runs that have ended, and the points of one of them."""
    client = MlflowClient(line.server or line.address)
    runs = runs_of(client, EXPERIMENT, campaign_id)
    assert len(runs) == line.num_trials + 1, f"a run of each trial and the campaign's: got {len(runs)}"
    assert {run.info.status for run in runs} == {"FINISHED"}
    trial = next(run for run in runs if run.data.tags["kind"] == "trial")
    found = points_of(client, trial, [metric_name(name) for name in METRICS])
    assert len(found) == line.num_reports * len(METRICS), f"every point of a trial: got {len(found)}"


def time_callback(line: Line) -> float:
    """Have Ray's callback write a trial of 20 reports; give points a second."""
    callback, trial = MLflowLoggerCallback(tracking_uri=line.server, experiment_name="ray"), RayTrial()
    callback.setup()
    start = time.perf_counter()
    callback.log_trial_start(trial)
    for iteration in range(1, _REPORTS_OF_CALLBACK + 1):
        callback.log_trial_result(iteration, trial, {**METRICS, "training_iteration": iteration})
    callback.log_trial_end(trial)
    return _REPORTS_OF_CALLBACK * (len(METRICS) + 1) / (time.perf_counter() - start)


def places(stack: ExitStack, *, num_workers: int) -> Iterator[tuple[str, str, str | None]]:
    """Open the places that points go to; give name, where ours writes, and the server."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    yield "a file", f"sqlite:///{folder / 'mlflow.sqlite'}", None
    own = PrivateMlflow()
    stack.callback(own.remove)
    yield "spectune serve's", own.store, own.address
    server = PrivateMlflow(workers=num_workers)
    stack.callback(server.remove)
    yield "mlflow server, SQLite", server.address, server.address
    binaries = find_binaries()
    if binaries is None:
        print("No PostgreSQL is installed in /usr/lib/postgresql: its lines are left out.")
        return
    database = PrivatePostgres(binaries)
    stack.callback(database.remove)
    store = database.new_database().replace("postgresql:", "postgresql+psycopg:")
    server = PrivateMlflow(store=store, workers=num_workers)
    stack.callback(server.remove)
    yield "mlflow server, PostgreSQL", server.address, server.address


def measure(*, num_trials: int, num_rounds: int, num_workers: int) -> list[dict[str, Any]]:
    """Time every line in every round."""
    with ExitStack() as stack:
        lines = [
            Line(*place, num_reports, max(1, num_trials * NUM_REPORTS[0] // num_reports))
            for place in places(stack, num_workers=num_workers)
            for num_reports in NUM_REPORTS
        ]
        numbers = itertools.count()
        for line in lines:  # the first of each opens connections and files
            time_ours(Line(line.place, line.address, line.server, 2, 2), next(numbers))
        for _ in range(num_rounds):
            for line in lines:
                line.ours.append(time_ours(line, next(numbers)))
                if line.server is not None:
                    line.callback.append(time_callback(line))
                print(f"    {show(line.result())}", file=sys.stderr, flush=True)
        return [line.result() for line in lines]


def show(result: dict[str, Any]) -> str:
    """Write a line of the table."""
    callback, ratio = (f"{result[name]:.4g}" if name in result else "" for name in ("callback", "ratio"))
    counts = f"{result['trials']:6} {result['reports']:8} {result['points']:8}"
    return f"{result['place']:28} {counts} {result['ours']:9.0f} {callback:>9} {ratio:>7}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100, help="of 20 reports; of 140 there are a seventh as many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4, help="of `mlflow server`; four is its own choice")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Ray's of its own deprecations
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its servers end with it
    results = measure(num_trials=arguments.trials, num_rounds=arguments.rounds, num_workers=arguments.workers)
    print(f"{'points/s into':28} {'trials':>6} {'reports':>8} {'points':>8} {'ours':>9} {'callback':>9} {'ratio':>7}")
    for result in results:
        print(show(result))
    if arguments.json is not None:
        keep(arguments.json, {"rounds": arguments.rounds, "workers": arguments.workers, "lines": results})


if __name__ == "__main__":
    main()
