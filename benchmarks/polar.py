"""How exact each solver of the polar factor is, beside what it costs: every solver, spectrum and arithmetic.

    python -m benchmarks.polar --json benchmarks/results/polar_cpu.json            (a few minutes on two cores)
    python -m benchmarks.polar --device cuda --size 1024 --json benchmarks/results/polar_cuda.json

Error is ‖X − U Vᵀ‖_F / √m against a float64 SVD, U Vᵀ the compact factor; mean and largest over draws. Products are
matrix products as torch dispatches them, so that a step of Newton-Schulz has three. Time is the median over rounds in
which the solvers take turns, on the first draw, clock stopped after the device is done.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.momenta import recorded_momenta
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.polar.solvers import SOLVERS

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    **{name: {"solver": name} for name in SOLVERS},
    "minimax l0=1e-3": {"solver": "minimax", "l0": 1e-3},
    "minimax l0=2e-3": {"solver": "minimax", "l0": 2e-3},
    "qdwh l0=1e-6": {"solver": "qdwh", "l0": 1e-6},
    "zolo_pd l0=1e-6": {"solver": "zolo_pd", "l0": 1e-6},
    "gram classic": {"solver": "gram", "coefficients": "newton_schulz"},
    "gram l0=1e-3": {"solver": "gram", "l0": 1e-3},
}
DEFICIENT = "rank-deficient"
DTYPES = ("float32", "float16", "bfloat16", "float64")
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    spectrum: str
    dtype: str
    solver: str
    mean_error: float
    max_error: float
    worse_than_polar_express: float
    products: int
    milliseconds: float
    num_matrices: int


class CountProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]  # the base has no types
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in PRODUCTS
        return func(*args, **(kwargs or {}))


def orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Draw orthonormal columns."""
    factor: Tensor = torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q
    return factor


def with_spectrum(sigma: Tensor, columns: int, generator: torch.Generator, *, rank: int | None = None) -> Tensor:
    """Draw a wide matrix with these singular values, or the first `rank` of them."""
    rows = len(sigma)
    kept = rows if rank is None else rank
    left, right = orthonormal(rows, rows, generator)[:, :kept], orthonormal(columns, kept, generator)
    return (left * sigma[:kept]) @ right.mT


def spectra(size: int) -> dict[str, Callable[[torch.Generator], Tensor]]:
    """Return each synthetic spectrum as a function that draws one float64 matrix."""
    ones = torch.ones(size, dtype=torch.float64)

    def gaussian(rows: int, columns: int) -> Callable[[torch.Generator], Tensor]:
        return lambda generator: torch.randn(rows, columns, generator=generator, dtype=torch.float64)

    def spiked(height: float) -> Callable[[torch.Generator], Tensor]:
        return lambda generator: with_spectrum(torch.cat([height * ones[:1], ones[1:]]), 2 * size, generator)

    def decaying(kappa: float) -> Callable[[torch.Generator], Tensor]:
        sigma = torch.logspace(0, -math.log10(kappa), size, dtype=torch.float64)
        return lambda generator: with_spectrum(sigma, size, generator)

    power_law = 1 / torch.arange(1, size + 1, dtype=torch.float64)
    return {
        "gaussian 1:1": gaussian(size, size),
        "gaussian 4:1": gaussian(4 * size, size),
        "gaussian 1:4": gaussian(size, 4 * size),
        "spiked 30": spiked(30.0),
        "spiked 300": spiked(300.0),
        "spiked 500": spiked(500.0),
        "power law": lambda generator: with_spectrum(power_law, size, generator),
        "kappa 1e3": decaying(1e3),
        "kappa 1e6": decaying(1e6),
        DEFICIENT: lambda generator: with_spectrum(ones, 2 * size, generator, rank=size // 4),
    }


def legal(options: dict[str, Any], dtype: str) -> bool:
    """Return whether the solver has the arithmetic."""
    return dtype in ("float32", "float64") or dtype in SOLVERS[options["solver"]].half_dtypes


def solve(matrix: Tensor, options: dict[str, Any], dtype: str) -> Tensor:
    """Run a configuration; what is to be computed in float64 is given in float64."""
    given = matrix.double() if dtype == "float64" else matrix.float()
    return polar_factor(given, compute_dtype=dtype, **options)


def measure(spectrum: str, matrices: list[Tensor], dtype: str, rounds: int) -> list[Row]:
    """Return a row for each solver that has the arithmetic."""
    names = [name for name, options in CONFIGURATIONS.items() if legal(options, dtype)]
    exact = [polar_factor(_reference(one, spectrum, dtype), solver="svd") for one in matrices]
    errors = {
        name: [_error(solve(one, CONFIGURATIONS[name], dtype), X) for one, X in zip(matrices, exact, strict=True)]
        for name in names
    }
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            seconds[name].append(timed(matrices[0], CONFIGURATIONS[name], dtype))
    theirs = errors["polar_express"]
    return [
        Row(
            spectrum=spectrum,
            dtype=dtype,
            solver=name,
            mean_error=statistics.fmean(errors[name]),
            max_error=max(errors[name]),
            worse_than_polar_express=statistics.fmean(
                mine > other for mine, other in zip(errors[name], theirs, strict=True)
            ),
            products=count_products(matrices[0], CONFIGURATIONS[name], dtype),
            milliseconds=1e3 * statistics.median(seconds[name]),
            num_matrices=len(matrices),
        )
        for name in names
    ]


def _reference(matrix: Tensor, spectrum: str, dtype: str) -> Tensor:
    """Return the matrix that the solver is handed; where it lacks rank, the one before rounding made it full."""
    return matrix.double() if dtype == "float64" or spectrum == DEFICIENT else matrix.float().double()


def _error(factor: Tensor, exact: Tensor) -> float:
    return float((factor.double() - exact).norm()) / math.sqrt(min(exact.shape))


def timed(matrix: Tensor, options: dict[str, Any], dtype: str) -> float:
    """Return the seconds of one solve."""
    _finish(matrix)
    begin = time.perf_counter()
    solve(matrix, options, dtype)
    _finish(matrix)
    return time.perf_counter() - begin


def _finish(matrix: Tensor) -> None:
    if matrix.is_cuda:
        torch.cuda.synchronize()


def count_products(matrix: Tensor, options: dict[str, Any], dtype: str) -> int:
    """Return the matrix products of one solve."""
    counter = CountProducts()
    with counter:
        solve(matrix, options, dtype)
    return counter.count


def line(row: Row) -> str:
    """Format a row."""
    return (
        f"{row.spectrum:21} {row.dtype:9} {row.solver:16} {row.mean_error:10.2e} {row.max_error:10.2e}"
        f" {row.worse_than_polar_express:7.0%} {row.products:5d} {row.milliseconds:9.2f}"
    )


def main() -> None:
    """Measure, print the table as it grows, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--size", type=int, default=256, help="smaller side of the synthetic matrices")
    parser.add_argument(
        "--draws", type=int, default=10, help="matrices of a spectrum in float32; a third in the others"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timings of each solver")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--json", type=Path, help="where to write the table")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    matrices = {name: [draw(generator) for _ in range(options.draws)] for name, draw in spectra(options.size).items()}
    matrices |= recorded_momenta()
    header = f"{'spectrum':21} {'dtype':9} {'solver':16} {'mean error':>10} {'max error':>10} {'> PE':>7} {'mm':>5}"
    print(f"{header} {'ms':>9}")
    rows: list[Row] = []
    for dtype in options.dtypes:
        for spectrum, given in matrices.items():
            some = given if dtype == "float32" else given[:: max(1, len(given) // max(1, options.draws // 3))]
            rows += measure(spectrum, [one.to(options.device) for one in some], dtype, options.rounds)
            print("\n".join(line(row) for row in rows if (row.spectrum, row.dtype) == (spectrum, dtype)), flush=True)
    if options.json is not None:
        processor = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor()
        about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "processor": processor}
        about |= {"device": options.device, "size": options.size, "rounds": options.rounds}
        options.json.write_text(json.dumps({"about": about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
