"""What pinning products of matrices costs, and what it buys, for each way that MKL can be told to compute.

    python -m benchmarks.products [--rounds 5]

The ways take turns, each in a process of its own with one thread, for MKL decides once. `ms` is the median over the
rounds of a product of 512 x 512 in fp32; `rows` counts the products, of 300, in which the rows of one trial among
those of others differ from the same rows alone, and `batch` those of 300 batches of at least two products whose first
ones differ from the same ones in a smaller batch. `fused step` is a step of eight small transformers trained as one,
for each of them.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from statistics import median
from typing import Final

import torch

from spectune.trainers import Schedule, TrialSetting, task_from_options
from spectune.trainers.engines.population import Population

WAYS: Final = ("", "AVX2", "AVX512", "AVX2,STRICT", "AVX512,STRICT", "COMPATIBLE")
MEMBERS: Final = 8
_SIZES: Final = (1, 2, 3, 5, 8, 16, 20, 33, 48, 64, 100, 192)


def product_seconds() -> float:
    """Time a product of two matrices of 512 x 512."""
    left, right = torch.randn(512, 512), torch.randn(512, 512)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        _ = left @ right
        times.append(time.perf_counter() - start)
    return median(times)


def step_seconds() -> float:
    """Time a step of a small transformer among eight."""
    options = {"width": 48, "depth": 2, "heads": 4, "context": 64, "batch_size": 8}
    population = Population()
    for trial in range(MEMBERS):
        setting = TrialSetting(
            task=task_from_options("language_model", options),
            optimizer="muon",
            hyperparameters={"lr": 0.01, "weight_decay": 0.0, "compute_dtype": "auto"},
            schedule=Schedule(),
            steps=100,
            seed=trial,
            data_seed=0,
        )
        population.admit(trial, setting)
    population.advance(dict.fromkeys(range(MEMBERS), 3))
    start = time.perf_counter()
    population.advance(dict.fromkeys(range(MEMBERS), 13))
    return (time.perf_counter() - start) / 10 / MEMBERS


def num_different() -> tuple[int, int]:
    """Count the products whose bits depend on what is computed beside them: folded into rows, and in batches."""
    torch.manual_seed(0)
    choose = random.Random(0).choice
    folded, batched = 0, 0
    for _ in range(300):
        trials, part = choose([3, 7, 16, 24]), 2
        rows, inner, columns = (choose(_SIZES) for _ in range(3))
        left, right = torch.randn(trials, rows, inner), torch.randn(trials, inner, columns)
        together = (left.reshape(-1, inner) @ right[0]).view(trials, rows, columns)
        folded += not torch.equal(together[1], left[1] @ right[0])
        batched += not torch.equal(torch.bmm(left, right)[:part], torch.bmm(left[:part], right[:part]))
    return folded, batched


def main() -> None:
    """Measure and print; `--one` measures in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        torch.set_num_threads(1)
        print(product_seconds(), step_seconds(), *num_different())
        return
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way, rounds in found.items():
            environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
            environment |= {"OMP_NUM_THREADS": "1"} | ({"MKL_CBWR": way} if way else {})
            command = [sys.executable, "-m", "benchmarks.products", "--one"]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            rounds.append([float(each) for each in done.stdout.split()])
    print(f"{'MKL_CBWR':16} {'ms':>6} {'fused step, ms':>15} {'rows':>6} {'batch':>6}")
    for way, rounds in found.items():
        seconds, step, rows, batch = (median(column) for column in zip(*rounds, strict=True))
        print(f"{way or 'not set':16} {1e3 * seconds:6.2f} {1e3 * step:15.2f} {rows:6.0f} {batch:6.0f}")


if __name__ == "__main__":
    main()
