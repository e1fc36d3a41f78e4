"""How exact ROOT's directions are in training, by where its coefficients are from, and what that does to the loss.

    python -m benchmarks.root_coefficients [--width 128] [--steps 300] [--seeds 3] [--json FILE]

A language model (`trainers`' task, on Python's own sources) is trained by `Root` from the same start with the
coefficients of the table, of a calibration to momenta of an earlier run of another seed, and refitted online. Every 25
steps from the 50th on the matrices that were made orthogonal are made so again, with the triples in use and by SVD.
Printed are the root mean square of ‖X − U Vᵀ‖_F / sqrt(m) over matrices and steps, the time of a step of the optimizer,
and the validation loss at the end, with its mean difference to the table's and that mean's standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import torch
from torch import Tensor

from spectune.optimizers import Root, RootRule, build_optimizer, diagnostics, polar_factor
from spectune.optimizers.rules.calibration import calibrate, momenta_of_shape, record_momenta
from spectune.optimizers.rules.root import COEFFICIENTS
from spectune.trainers.tasks.language_model import LanguageModel

LR: Final = 0.02
REFIT_EVERY: Final = 25
FIRST_LOOK: Final = 50
RECORDED_AFTER: Final = 50


def run(task: LanguageModel, mode: str, *, seed: int, steps: int) -> dict[str, Any]:
    """Train once; give the validation loss, the error of the directions and the seconds of the steps."""
    model = task.build(torch.Generator().manual_seed(seed))
    optimizer = build_optimizer(model, "root", lr=LR, coefficients=mode, refit_every=REFIT_EVERY)
    assert isinstance(optimizer, Root)
    errors, seconds = [], 0.0
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        task.loss(model, task.batch(step, seed)).backward()  # type: ignore[no-untyped-call]
        start = time.perf_counter()
        optimizer.step()
        seconds += time.perf_counter() - start
        if step >= FIRST_LOOK and step % REFIT_EVERY == 0:
            errors += _errors(optimizer)
    loss = task.evaluate(model, seed)["validation_loss"]
    return {
        "validation_loss": loss,
        "error": mean(error**2 for error in errors) ** 0.5,
        "milliseconds_per_step": 1e3 * seconds / steps,
    }


def calibrate_on_another_run(task: LanguageModel, *, seed: int) -> None:
    """Leave a fit to every shape of the model on disk, from momenta of a run of the table."""
    model = task.build(torch.Generator().manual_seed(seed))
    optimizer = build_optimizer(model, "root", lr=LR)
    for step in range(1, RECORDED_AFTER + 1):
        optimizer.zero_grad()
        task.loss(model, task.batch(step, seed)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    recorded = record_momenta(optimizer)
    for rows, columns in sorted({(momentum.shape[0], momentum.shape[1]) for momentum in recorded.values()}):
        calibrate((rows, columns), momenta=momenta_of_shape(recorded, (rows, columns)))


def _errors(optimizer: Root) -> list[float]:
    group = optimizer.param_groups[0]
    errors = []
    for parameter in group["params"]:
        state = optimizer.state[parameter]
        matrix = RootRule().suppress(_followed(parameter, state, group["momentum"]), group)
        own = state.get("triples")
        direction = polar_factor(matrix, solver="adanewton", coefficients=own, eps=group["eps"])
        errors.append(diagnostics.polar_error(direction, matrix).item())
    return errors


def _followed(parameter: Tensor, state: dict[str, Tensor], momentum: float) -> Tensor:
    """Return Nesterov's V, of the gradient that the step has read."""
    assert parameter.grad is not None
    followed: Tensor = momentum * state["momentum_buffer"] + parameter.grad
    return followed


def _show(mode: str, runs: list[dict[str, Any]], table: list[dict[str, Any]]) -> None:
    error, loss, milliseconds = (
        mean(each[key] for each in runs) for key in ("error", "validation_loss", "milliseconds_per_step")
    )
    apart = [own["validation_loss"] - other["validation_loss"] for own, other in zip(runs, table, strict=True)]
    spread = f" ± {stdev(apart) / len(apart) ** 0.5:.4f}" if len(apart) > 1 else ""
    against = "" if runs is table else f" ({mean(apart):+.4f}{spread} against the table, seed by seed)"
    print(f"{mode:11} error {error:.3f}   {milliseconds:5.1f} ms a step   validation loss {loss:.4f}{against}")


def main() -> None:
    """Run every mode for every seed, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the results here, too")
    options = parser.parse_args()
    task = LanguageModel(width=options.width, depth=2, heads=4, context=64, batch_size=8)
    results: dict[str, list[dict[str, Any]]] = {mode: [] for mode in COEFFICIENTS}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SPECTUNE_CACHE_DIR"] = folder
        calibrate_on_another_run(task, seed=1000)
        for seed in range(options.seeds):
            for mode, runs in results.items():
                runs.append(run(task, mode, seed=seed, steps=options.steps))
    for mode, runs in results.items():
        _show(mode, runs, results["table"])
    if options.json is not None:
        about = {"torch": torch.__version__, "threads": torch.get_num_threads(), **vars(options), "json": None}
        options.json.write_text(json.dumps({"about": about, "runs": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
