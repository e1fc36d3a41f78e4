"""Time whole campaigns: the same trials through Ray Tune, as people use it and tuned by hand, and through Spectune.

    python -m benchmarks.campaign [--problems 20x20 transformer] [--rounds 3] [--trials 1024] [--baseline-trials 64]
                                  [--json FILE]

Every trial is Muon on one problem, 200 steps and 20 reports, its learning rate drawn at random; all sides train it with
the same code, two at a time where they have processes for it.

    20x20, 50x50, 100x100   matrix completion, where a trial's arithmetic is next to nothing
    transformer             the demo's small language model, where a trial is arithmetic and little else; here all sides
                            train as many trials as the baselines, for fusing gains nothing and trials cost seconds

    callback      Ray Tune, a function trainable, MLflowLoggerCallback into SQLite, everything else as it comes
    reuse_actors  Ray Tune, a class trainable with reuse_actors, no loggers, no tracking
    spectune      `spectune run`: ledger, MLflow, leaderboard, everything on

In each round reuse_actors and spectune run, each first in every other, so that whatever else the machine does meets
both; the callback, whose 64 trials take five minutes, runs once. A time is wall time by the number of trials, the
median of the rounds; a ratio is the median of the rounds' ratios, and the JSON has the least and the greatest, too.

Ray's clock starts when its cluster is up, Spectune's with its process, and is read twice: when the campaign has ended,
and when MLflow holds every point of it. `whole` is the ratio to reuse_actors with clocks alike, from the start of
either process: it flatters us where trials are tiny, for there its start is spread over fewer of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.kept import keep_lines
from benchmarks.ray_tune import PROBLEMS, REPORTS, STEPS, WORKERS, Problem

Milliseconds = dict[str, float]
RATIOS: Final = {
    "against_callback": ("callback_ms", "spectune_ms"),
    "against_callback_tracked": ("callback_ms", "spectune_tracked_ms"),
    "against_reuse_actors": ("reuse_actors_ms", "spectune_ms"),
    "against_reuse_actors_whole": ("reuse_actors_whole_ms", "spectune_ms"),
}


def run_spectune(problem: Problem, num_trials: int, folder: Path) -> dict[str, float]:
    """Run `spectune run`; give its seconds to the campaign's end, and to the last point in MLflow."""
    from spectune.service.ledger import Ledger

    campaign = {
        "name": "benchmark",
        "task": {"name": problem.task, **problem.options, "steps": STEPS},
        "objective": {"metric": "validation_loss", "mode": "minimize", "every_steps": STEPS // REPORTS},
        "arms": [
            {
                "optimizer": "muon",
                "space": {"lr": {"log_uniform": list(problem.lr)}},
                "fixed": {"weight_decay": 0.0},
            }
        ],
        "search": {"sampler": "random", "points": num_trials},
        "resources": {"workers": WORKERS, "cpus": 1},
    }
    (folder / "campaign.yaml").write_text(json.dumps(campaign))  # JSON is YAML
    spectune = str(Path(sys.executable).with_name("spectune"))
    command = [spectune, "run", str(folder / "campaign.yaml"), "--data-dir", str(folder)]
    start, began_at = time.perf_counter(), time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    with Ledger.at(folder / "ledger.sqlite") as ledger:
        (record,) = ledger.campaigns()
        trials = ledger.trials(record.campaign_id)
        num_points = len(ledger.observations(record.campaign_id))
    assert record.state == "SUCCEEDED", f"the campaign must succeed: got {record.state}, {record.message}"
    assert len(trials) == num_trials, f"{num_trials} trials were asked for: got {len(trials)}"
    num_completed = sum(trial.state == "COMPLETED" for trial in trials)
    print(f"    {num_completed} of {num_trials} completed, {num_points} reports", file=sys.stderr)
    return {"campaign": record.since / 1000 - began_at, "tracked": seconds}


def _side_in_own_process(side: str, problem: str, num_trials: int) -> tuple[float, float]:
    """Run a side of Ray in a process of its own, for it changes its environment; give both its times."""
    command = [sys.executable, "-m", "benchmarks.ray_tune", side, problem, str(num_trials)]
    began_at = time.time()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, ended_at = map(float, done.stdout.strip().splitlines()[-1].split())
    return seconds, ended_at - began_at


def measure(problem: str, *, num_rounds: int, num_trials: int, num_baseline_trials: int) -> dict[str, Any]:
    """Run all sides on one problem, taking turns; milliseconds are per trial."""
    num_trials = num_trials if PROBLEMS[problem].many else num_baseline_trials
    callback = _run_baseline("callback", problem, num_baseline_trials)
    rounds = []
    for number in range(num_rounds):
        turns: list[Callable[[], Milliseconds]] = [
            lambda: _run_baseline("reuse_actors", problem, num_baseline_trials),
            lambda: _run_ours(problem, num_trials),
        ]
        first, second = turns if number % 2 == 0 else reversed(turns)
        rounds.append(callback | first() | second())
        print("    " + "  ".join(f"{side} {value:.1f}" for side, value in rounds[-1].items()), file=sys.stderr)
    sides = {side: median(each[side] for each in rounds) for side in rounds[0]}
    ratios: dict[str, Any] = {}
    for name, (theirs, ours) in RATIOS.items():
        found = [each[theirs] / each[ours] for each in rounds]
        ratios |= {name: median(found), f"{name}_range": [min(found), max(found)]}
    numbers = {"rounds": num_rounds, "trials": num_trials, "baseline_trials": num_baseline_trials}
    return {"problem": problem, **numbers, **sides, **ratios}


def _run_baseline(side: str, problem: str, num_trials: int) -> Milliseconds:
    print(f"    {side}, {problem}", file=sys.stderr)
    since_cluster, since_start = _side_in_own_process(side, problem, num_trials)
    return {f"{side}_ms": 1e3 * since_cluster / num_trials, f"{side}_whole_ms": 1e3 * since_start / num_trials}


def _run_ours(problem: str, num_trials: int) -> Milliseconds:
    print(f"    spectune, {problem}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        seconds = run_spectune(PROBLEMS[problem], num_trials, Path(folder))
    campaign, tracked = (1e3 * seconds[mark] / num_trials for mark in ("campaign", "tracked"))
    return {"spectune_ms": campaign, "spectune_tracked_ms": tracked}


def show(line: dict[str, Any]) -> str:
    """Make a line of the table."""
    sides = f"{line['callback_ms']:10.0f} {line['reuse_actors_ms']:13.0f} {line['spectune_ms']:9.1f} "
    near = " to ".join(f"{end:.1f}" for end in line["against_reuse_actors_range"])
    return (
        f"{line['problem']:12} {sides}{line['spectune_tracked_ms']:10.1f} | {line['against_callback']:13.1f} "
        f"{line['against_callback_tracked']:8.1f} {line['against_reuse_actors']:18.2f} {near:>13} "
        f"{line['against_reuse_actors_whole']:6.2f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", choices=PROBLEMS, nargs="+", default=list(PROBLEMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=1024)
    parser.add_argument("--baseline-trials", type=int, default=64)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"at least one round is needed: got {arguments.rounds}")
    lines = []
    for problem in arguments.problems:
        lines.append(
            measure(
                problem,
                num_rounds=arguments.rounds,
                num_trials=arguments.trials,
                num_baseline_trials=arguments.baseline_trials,
            )
        )
        if arguments.json is not None:
            keep_lines(arguments.json, lines, of=("problem",))
    sides = "ms per trial   callback  reuse_actors  spectune    tracked"
    print(f"{sides} | callback/ours  tracked  reuse_actors/ours         range  whole")
    print("\n".join(map(show, lines)))


if __name__ == "__main__":
    main()
