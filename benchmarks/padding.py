"""Time the products of a Newton-Schulz step in bfloat16, with and without room between the rows of its matrices.

    python -m benchmarks.padding [--threads 2] [--rounds 15] [--json FILE]

A step is X Xᵀ, b A + c A² and a X + B X. Both ways take turns in every round on the same entries; shown are the medians
of a step and of the rounds' ratios, and whether the results are the same bits.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

import torch
from torch import Tensor

from spectune.optimizers.polar.coefficients import CLASSIC
from spectune.optimizers.polar.half_products import has_bfloat16_instructions
from spectune.optimizers.polar.quintic_memory import PADDING

SHAPES: Final = ((512, 512), (512, 2048), (768, 768), (1024, 1024), (1024, 4096), (2048, 2048))


def step_of(start: Tensor, padding: int) -> Callable[[], Tensor]:
    """Return a step on a matrix of [rows, columns], whose memory has so many entries between rows."""
    rows, columns = start.shape

    def memory(width: int) -> Tensor:
        return torch.empty(rows, width + padding, dtype=torch.bfloat16)[:, :width]

    X, A, B, result = memory(columns).copy_(start), memory(rows), memory(rows), memory(columns)
    a, b, c = CLASSIC

    def step() -> Tensor:
        torch.mm(X, X.mT, out=A)
        torch.addmm(A, A, A, beta=b, alpha=c, out=B)
        return torch.addmm(X, B, X, beta=a, out=result)

    return step


def measure(shape: tuple[int, int], *, rounds: int) -> dict[str, float | bool]:
    """Time both ways in turns."""
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0)) / max(shape) ** 0.5
    ways = [step_of(start, 0), step_of(start, PADDING)]
    is_same = torch.equal(ways[0](), ways[1]())
    times: list[tuple[float, float]] = []
    for number in range(rounds):
        taken = [0.0, 0.0]
        for way in (0, 1) if number % 2 else (1, 0):
            began = time.perf_counter()
            ways[way]()
            taken[way] = time.perf_counter() - began
        times.append((taken[0], taken[1]))
    plain, padded = (1e3 * median(each[way] for each in times) for way in (0, 1))
    ratio = median(padded / plain for plain, padded in times)
    return {"plain_ms": plain, "padded_ms": padded, "ratio": ratio, "same_bits": is_same}


def main() -> None:
    """Print a line for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"torch {torch.__version__}, bfloat16 instructions {has_bfloat16_instructions()}, {arguments.threads} threads"
    )
    found = {}
    for shape in SHAPES:
        found["x".join(map(str, shape))] = line = measure(shape, rounds=arguments.rounds)
        numbers = f"{line['plain_ms']:8.3f} ms {line['padded_ms']:8.3f} ms padded {line['ratio']:6.3f} of the time"
        print(f"{shape[0]:5} x {shape[1]:<5} {numbers}, {'same' if line['same_bits'] else 'other'} bits")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
