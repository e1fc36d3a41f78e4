"""The trials of `benchmarks.campaign` through Ray Tune, as people use it and tuned by hand.

    python -m benchmarks.ray_tune SIDE PROBLEM TRIALS

trains so many trials and prints their seconds, from when Ray's cluster is up, and the moment at which they ended.
"""

from __future__ import annotations

import os
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

    from spectune.trainers import Schedule, SoloTrial, TrialSetting, task_from_options

    torch.set_num_threads(1)
    problem = PROBLEMS[config["problem"]]
    return SoloTrial(
        TrialSetting(
            task=task_from_options(problem.task, problem.options),
            optimizer="muon",
            hyperparameters={"lr": config["lr"], "weight_decay": 0.0, "compute_dtype": "float32"},
            schedule=Schedule(),
            steps=STEPS,
            seed=0,
            data_seed=0,
        )
    )


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
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
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


SIDES: Final[dict[str, Callable[[str, int, Path], tuple[float, float]]]] = {
    "callback": run_callback,
    "reuse_actors": run_reuse_actors,
}


def main() -> None:
    """Run one side."""
    side, problem, num_trials = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        print(*SIDES[side](problem, int(num_trials), Path(folder)))


if __name__ == "__main__":
    main()
