"""Time whole campaigns: the same trials through Ray Tune, as people use it and tuned by hand, and through Spectune.

    python -m benchmarks.campaign [--problems 20x20 transformer] [--trials 1024] [--baseline-trials 64] [--json FILE]

Every trial is Muon on one problem, 200 steps and 20 reports, its learning rate drawn at random; all sides train it with
the same code, two at a time where they have processes for it.

    20x20, 50x50, 100x100   matrix completion, where a trial's arithmetic is next to nothing
    transformer             the demo's small language model, where a trial is arithmetic and little else; here all sides
                            train as many trials as the baselines, for fusing gains nothing and trials cost seconds

    callback      Ray Tune, a function trainable, MLflowLoggerCallback into SQLite, everything else as it comes
    reuse_actors  Ray Tune, a class trainable with reuse_actors, no loggers, no tracking
    spectune      `spectune run`: ledger, MLflow, leaderboard, everything on

A time is wall time by the number of trials. Ray's clock starts when its cluster is up, Spectune's with its process, and
is read twice: when the campaign has ended, and when MLflow holds every point of it. `whole` is the ratio to
reuse_actors with clocks alike, from the start of either process: it flatters us where trials are tiny, for there its
start is spread over fewer of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

STEPS: Final = 200
REPORTS: Final = 20
WORKERS: Final = 2


@dataclass(frozen=True)
class Problem:
    """What a trial trains: a task, its options, the range of its learning rate; `many` if such trials are cheap."""

    task: str
    options: dict[str, Any]
    lr: tuple[float, float]
    many: bool


def _matrix_completion(size: int) -> Problem:
    options = {"rows": size, "columns": size, "rank": 3, "observed_fraction": 0.3}
    return Problem("matrix_completion", options, lr=(1e-2, 1.0), many=True)


PROBLEMS: Final = {
    "20x20": _matrix_completion(20),
    "50x50": _matrix_completion(50),
    "100x100": _matrix_completion(100),
    "transformer": Problem(
        "language_model",
        {"width": 48, "depth": 2, "heads": 4, "context": 64, "batch_size": 8},
        lr=(3e-3, 1e-1),
        many=False,
    ),
}


def make_trial(config: dict[str, Any]) -> Any:
    """Make the trial that every side trains."""
    import torch

    from trainers import Schedule, SoloTrial, TrialSetting, task_from_options

    torch.set_num_threads(1)
    problem = PROBLEMS[config["problem"]]
    return SoloTrial(
        TrialSetting(
            task=task_from_options(problem.task, problem.options),
            optimizer="muon",
            hyperparameters={"lr": config["lr"], "weight_decay": 0.0},
            schedule=Schedule(),
            steps=STEPS,
            seed=0,
            data_seed=0,
        )
    )


# Ray Tune


def run_callback(problem: str, num_trials: int, folder: Path) -> tuple[float, float]:
    """Run Ray Tune as people use it; give its seconds, and when it ended."""
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    def train(config: dict[str, Any]) -> None:
        trial = make_trial(config)
        for report in range(1, REPORTS + 1):
            trial.advance(report * STEPS // REPORTS)
            tune.report(trial.report())

    callback = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.sqlite", experiment_name="benchmark")
    return _fit(train, problem, num_trials, folder, callbacks=[callback], reuse_actors=False)


def run_reuse_actors(problem: str, num_trials: int, folder: Path) -> tuple[float, float]:
    """Run Ray Tune tuned by hand; give its seconds, and when it ended."""
    from ray import tune

    class Trainable(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self._trial = make_trial(config)

        def step(self) -> dict[str, Any]:
            self._trial.advance(self._trial.step + STEPS // REPORTS)
            return {**self._trial.report(), "done": self._trial.step == STEPS}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._trial = make_trial(new_config)
            return True

    return _fit(Trainable, problem, num_trials, folder, callbacks=[], reuse_actors=True)


def _fit(
    trainable: Any, problem: str, num_trials: int, folder: Path, *, callbacks: list[Any], reuse_actors: bool
) -> tuple[float, float]:
    import ray
    from ray import tune

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    tuner = tune.Tuner(
        trainable,
        param_space={"problem": problem, "lr": tune.loguniform(*PROBLEMS[problem].lr)},
        tune_config=tune.TuneConfig(num_samples=num_trials, reuse_actors=reuse_actors),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            callbacks=callbacks,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False if reuse_actors else None),
            verbose=0,
        ),
    )
    start = time.perf_counter()
    results = tuner.fit()
    seconds, ended_at = time.perf_counter() - start, time.time()
    ray.shutdown()
    assert len(results) == num_trials, f"{num_trials} trials were asked for: got {len(results)}"
    assert not results.errors, f"a trial failed: got {results.errors[0]}"
    return seconds, ended_at


# Spectune


def run_spectune(problem: Problem, num_trials: int, folder: Path) -> dict[str, float]:
    """Run `spectune run`; give its seconds to the campaign's end, and to the last point in MLflow."""
    from service.ledger import Ledger

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


# Table


SIDES: Final[dict[str, Callable[[str, int, Path], tuple[float, float]]]] = {
    "callback": run_callback,
    "reuse_actors": run_reuse_actors,
}


def _side_in_own_process(side: str, problem: str, num_trials: int) -> tuple[float, float]:
    """Run a side of Ray in a process of its own, for it changes its environment; give both its times."""
    command = [sys.executable, "-m", "benchmarks.campaign", "--side", side, "--problems", problem]
    loggers = {} if side == "callback" else {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    began_at = time.time()
    done = subprocess.run(
        [*command, "--baseline-trials", str(num_trials)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **loggers},
    )
    seconds, ended_at = map(float, done.stdout.strip().splitlines()[-1].split())
    return seconds, ended_at - began_at


def measure(problem: str, *, num_trials: int, num_baseline_trials: int) -> dict[str, Any]:
    """Run all sides on one problem; milliseconds are per trial."""
    num_trials = num_trials if PROBLEMS[problem].many else num_baseline_trials
    line: dict[str, Any] = {"problem": problem, "trials": num_trials, "baseline_trials": num_baseline_trials}
    for side in SIDES:
        print(f"    {side}, {problem}", file=sys.stderr)
        since_cluster, since_start = _side_in_own_process(side, problem, num_baseline_trials)
        line[f"{side}_ms"] = 1e3 * since_cluster / num_baseline_trials
        line[f"{side}_whole_ms"] = 1e3 * since_start / num_baseline_trials
    with tempfile.TemporaryDirectory() as folder:
        seconds = run_spectune(PROBLEMS[problem], num_trials, Path(folder))
    line["spectune_ms"] = 1e3 * seconds["campaign"] / num_trials
    line["spectune_tracked_ms"] = 1e3 * seconds["tracked"] / num_trials
    line["against_callback"] = line["callback_ms"] / line["spectune_ms"]
    line["against_callback_tracked"] = line["callback_ms"] / line["spectune_tracked_ms"]
    line["against_reuse_actors"] = line["reuse_actors_ms"] / line["spectune_ms"]
    line["against_reuse_actors_whole"] = line["reuse_actors_whole_ms"] / line["spectune_ms"]
    return line


def _keep(path: Path, lines: list[dict[str, Any]]) -> None:
    """Put lines into a file in the place of those of the same problems."""
    kept = json.loads(path.read_text(encoding="utf-8"))["lines"] if path.exists() else []
    merged = {line["problem"]: line for line in (*kept, *lines)}
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    path.write_text(json.dumps({"machine": machine, "lines": list(merged.values())}, indent=1) + "\n")


def main() -> None:
    """Measure and print; `--side` runs one side of Ray alone and prints its seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", choices=PROBLEMS, nargs="+", default=list(PROBLEMS))
    parser.add_argument("--trials", type=int, default=1024)
    parser.add_argument("--baseline-trials", type=int, default=64)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(*SIDES[arguments.side](arguments.problems[0], arguments.baseline_trials, Path(folder)))
        return
    lines = []
    for problem in arguments.problems:
        lines.append(measure(problem, num_trials=arguments.trials, num_baseline_trials=arguments.baseline_trials))
        if arguments.json is not None:
            _keep(arguments.json, lines)
    print(
        "ms per trial   callback  reuse_actors  spectune    tracked | callback/ours  tracked  reuse_actors/ours  whole"
    )
    for line in lines:
        print(
            f"{line['problem']:12} {line['callback_ms']:10.0f} {line['reuse_actors_ms']:13.0f} "
            f"{line['spectune_ms']:9.1f} {line['spectune_tracked_ms']:10.1f} | {line['against_callback']:13.1f} "
            f"{line['against_callback_tracked']:8.1f} {line['against_reuse_actors']:18.2f} "
            f"{line['against_reuse_actors_whole']:6.2f}"
        )


if __name__ == "__main__":
    main()
