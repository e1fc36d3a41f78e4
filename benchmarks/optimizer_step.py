"""Time a step of our optimizers beside their peers': one process, interleaved, medians, ratios.

    python -m benchmarks.optimizer_step [--device cuda] [--threads 2] [--repeats 15] [--json FILE]
    python -m benchmarks.optimizer_step --only defaults [--widths 16,…,2048] [--matrices N] [--keep]
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python -m … --only defaults --matrices 1   no bfloat16 instructions

Classes with their default arguments come first, then their options.
Every optimizer of a case owns equal matrices and equal gradients. In a round each takes one step, in turn, so that
what disturbs the machine disturbs all of them, and each round has an order of its own, for what a line leaves in cache
and heap its successor finds. A PolarGrad line ends with the error ‖X − U Vᵀ‖_F / √m of its direction: a time is
compared at equal error only. A time is the median over the rounds; a ratio is the median of the rounds' ratios against
the first line of the case, above 1 where the line is faster. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, Final, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.kept import keep
from spectune.optimizers import Muon, PolarGrad, Root
from spectune.optimizers.polar.coefficients import CLASSIC
from spectune.optimizers.polar.half_products import has_bfloat16_instructions

Shapes: TypeAlias = Sequence[tuple[int, int]]
Build: TypeAlias = Callable[[list[nn.Parameter]], Optimizer]

WARMUP_STEPS: Final = 3
LEAST_ROUNDS: Final = 3
SECONDS: Final = 60.0
"""After which a case takes no further round, beyond the least: torch alone may take minutes a step."""
WIDTHS: Final = (16, 32, 64, 128, 256, 512, 1024, 2048)
RESULTS: Final = Path(__file__).parent / "results"
SQUARES_64: Final[Shapes] = [(64, 64)] * 24
RECTANGLES_64: Final[Shapes] = [(64, 256), (256, 64)] * 12
SQUARES_256: Final[Shapes] = [(256, 256)] * 24
RECTANGLES_256: Final[Shapes] = [(256, 1024), (1024, 256)] * 3
SMALL: Final[Shapes] = [(32, 32), (32, 64)] * 60


class PaddingMuon(Muon):
    """Ours with every shape that nearly fits in one batch, wherever it runs."""

    merge: ClassVar[str] = "padded"
    merge_on_cpu: ClassVar[str] = "padded"


def default_cases(widths: Sequence[int], matrices: int | None) -> Iterator[tuple[str, Shapes, dict[str, Build]]]:
    """Yield Muon with default arguments beside torch's, on squares and, up to 512, on rectangles of 1:4 and 4:1.

    24 matrices each, 6 where six copies of 24 (two optimizers' parameters, gradients, momenta) would take 2 GB.
    """
    contenders: dict[str, Build] = {
        "torch.optim.Muon": lambda parameters: torch.optim.Muon(parameters),
        "ours": lambda parameters: Muon(parameters),
    }
    for width in widths:
        squares = matrices or (24 if width <= 1024 else 6)
        yield f"Muon by defaults, {squares} of {width}x{width}", [(width, width)] * squares, contenders
        if width <= 512:
            pairs = max(1, (matrices or (24 if width <= 128 else 6)) // 2)
            title = f"Muon by defaults, {2 * pairs} of {width}x{4 * width} and {4 * width}x{width}"
            yield title, [(width, 4 * width), (4 * width, width)] * pairs, contenders


def muon_contenders(*, compute_dtype: str) -> dict[str, Build]:
    """Return torch's Muon first, ours in an arithmetic, and the peers' that can be built, all with torch's defaults.

    pytorch_optimizer's saves a copy by writing the look ahead over the gradients; the others leave them as they are.
    """
    contenders: dict[str, Build] = {
        "torch.optim.Muon": lambda parameters: torch.optim.Muon(parameters),
        f"ours, {compute_dtype}": lambda parameters: Muon(parameters, compute_dtype=compute_dtype),
        f"ours, {compute_dtype}, padded": lambda parameters: PaddingMuon(parameters, compute_dtype=compute_dtype),
    }
    contenders[f"ours, {compute_dtype}, gram"] = lambda parameters: Muon(
        parameters, solver="gram", ns_coefficients=CLASSIC, compute_dtype=compute_dtype
    )
    zij, kozistr, heavyball = (_installed(name) for name in ("zij", "pytorch_optimizer", "heavyball"))
    if zij is not None:
        contenders["zij Muon"] = lambda parameters: zij.Muon(parameters)
    if kozistr is not None:
        contenders["pytorch_optimizer Muon"] = lambda parameters: kozistr.Muon(
            [{"params": parameters, "use_muon": True}], lr=1e-3, weight_decay=0.1
        )
    if heavyball is not None:
        contenders["heavyball Muon"] = lambda parameters: heavyball.Muon(
            parameters, lr=1e-3, weight_decay=0.1, compile_step=False, consume_grad=False
        )
    return contenders


def polargrad_contenders() -> dict[str, Build]:
    """Return zij's PolarGrad, unconverged as it comes and with the steps that converge, and ours."""
    contenders: dict[str, Build] = {}
    zij = _installed("zij")
    if zij is not None:
        contenders["zij PolarGrad, 4 QDWH steps"] = lambda parameters: zij.PolarGrad(parameters, inner_steps=4)
        contenders["zij PolarGrad, 2 QDWH steps (default)"] = lambda parameters: zij.PolarGrad(parameters)
    contenders["ours, svd (default)"] = lambda parameters: PolarGrad(parameters)
    contenders["ours, qdwh"] = lambda parameters: PolarGrad(parameters, solver="qdwh", ns_steps=99)
    contenders["ours, zolo_pd"] = lambda parameters: PolarGrad(parameters, solver="zolo_pd")
    contenders["ours, minimax"] = lambda parameters: PolarGrad(parameters, solver="minimax")
    return contenders


def direction_error(optimizer: Optimizer) -> float:
    """Return the largest error ‖X − U Vᵀ‖_F / √m of a step without decay, whose direction is X = polar(momentum)."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    before = [parameter.detach().double() for parameter in parameters]
    optimizer.step()
    errors: list[float] = []
    for parameter, start in zip(parameters, before, strict=True):
        U, _, Vh = torch.linalg.svd(parameter.grad.double(), full_matrices=False)  # equal gradients: the momentum's
        moved = start - parameter.detach().double()
        direction = moved / (moved * (U @ Vh)).sum() * min(moved.shape)
        errors.append(float((direction - U @ Vh).norm() / min(moved.shape) ** 0.5))
    return max(errors)


def root_contenders(*, compute_dtype: str) -> dict[str, Build]:
    """Return ROOT at percentile 1 first: what the other lines take longer is the clipping."""
    return {
        "ours, no clipping": lambda parameters: Root(parameters, percentile=1.0, compute_dtype=compute_dtype),
        "ours, exact percentile": lambda parameters: Root(parameters, compute_dtype=compute_dtype),
        "ours, sampled percentile": lambda parameters: Root(
            parameters, quantile="sampled", compute_dtype=compute_dtype
        ),
    }


def cases() -> Iterator[tuple[str, Shapes, dict[str, Build]]]:
    """Yield the title, the shapes and the contenders of every table."""
    for name, shapes in (
        ("24 of 64x64", SQUARES_64),
        ("24 of 64x256 and 256x64", RECTANGLES_64),
        ("24 of 256x256", SQUARES_256),
        ("6 of 256x1024 and 1024x256", RECTANGLES_256),
        ("120 small, 32x32 and 32x64", SMALL),
    ):
        for compute_dtype in ("bfloat16", "float32"):
            yield f"Muon, {name}, {compute_dtype}", shapes, muon_contenders(compute_dtype=compute_dtype)
    for name, shapes in (("24 of 64x64", SQUARES_64), ("24 of 64x256 and 256x64", RECTANGLES_64)):
        yield f"PolarGrad, {name}", shapes, polargrad_contenders()
    yield "PolarGrad, 6 of 256x256", [(256, 256)] * 6, polargrad_contenders()
    for name, shapes in (("24 of 64x64", SQUARES_64), ("24 of 256x256", SQUARES_256)):
        for compute_dtype in ("bfloat16", "float32"):
            yield f"ROOT, {name}, {compute_dtype}", shapes, root_contenders(compute_dtype=compute_dtype)


def measure(shapes: Shapes, contenders: dict[str, Build], *, device: str, repeats: int) -> list[dict[str, Any]]:
    """Return for each contender its median milliseconds and its median ratio against the first."""
    steps: dict[str, Callable[[], Any]] = {}
    optimizers: dict[str, Optimizer] = {}
    lines = []
    for name, build in contenders.items():
        optimizers[name] = build(_parameters(shapes, device))
        step = optimizers[name].step
        try:
            started = time.perf_counter()
            for _ in range(WARMUP_STEPS):
                if time.perf_counter() - started < SECONDS / 4:
                    step()
        except Exception as error:  # a peer's failure is a result of this table, and whatever it raises is shown
            lines.append({"optimizer": name, "failed": f"{type(error).__name__}: {error}"[:120]})
        else:
            steps[name] = step
    rounds: list[dict[str, float]] = []
    started = time.perf_counter()
    while len(rounds) < repeats and (len(rounds) < LEAST_ROUNDS or time.perf_counter() - started < SECONDS):
        order = random.Random(len(rounds)).sample(list(steps), len(steps))
        rounds.append({name: _milliseconds(steps[name], device) for name in order})
    first = next(iter(steps))
    measured: list[dict[str, Any]] = [
        {
            "optimizer": name,
            "milliseconds": median(times[name] for times in rounds),
            "ratio": median(times[first] / times[name] for times in rounds),
            "rounds": len(rounds),
        }
        for name in steps
    ]
    for line in measured:
        if "PolarGrad" in type(optimizers[line["optimizer"]]).__name__:
            line["error"] = direction_error(optimizers[line["optimizer"]])
    return measured + lines


def main() -> None:
    """Run every case, print as it goes, write JSON at the end."""
    options = _options()
    torch.set_num_threads(options.threads)
    about = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"CPU {platform.machine()}",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16 instructions": has_bfloat16_instructions(),
        "threads": options.threads,
        "repeats": options.repeats,
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    tables, text = {}, ""
    for title, shapes, contenders in (*default_cases(options.widths, options.matrices), *cases()):
        if options.only in title:
            tables[title] = measure(shapes, contenders, device=options.device, repeats=options.repeats)
            text += (shown := _shown(title, tables[title]))
            print(shown, end="", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"about": about, "tables": tables}, indent=1) + "\n")
    if options.keep:
        path = RESULTS / f"optimizer_step_defaults_{'bf16' if has_bfloat16_instructions() else 'no_bf16'}"
        keep(path.with_suffix(".json"), {"about": about, "tables": tables})
        path.with_suffix(".txt").write_text(f"{about}\n{text}", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", default="", help="run the cases whose title contains this")
    parser.add_argument("--widths", type=lambda text: [int(width) for width in text.split(",")], default=WIDTHS)
    parser.add_argument("--matrices", type=int, help="instead of 24 and 6 in a case of defaults")
    parser.add_argument("--keep", action="store_true", help="write the tables to benchmarks/results")
    parser.add_argument("--json", type=Path, help="write the tables here, too")
    return parser.parse_args()


def _shown(title: str, lines: list[dict[str, Any]]) -> str:
    text = f"\n{title}\n"
    for line in lines:
        result = line.get("failed") or f"{line['milliseconds']:9.2f} ms  {line['ratio']:6.2f}x"
        error = f"   error {line['error']:.1e}" if "error" in line else ""
        text += f"  {line['optimizer']:40}{result}{error}\n"
    return text


def _parameters(shapes: Shapes, device: str) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    parameters = []
    for shape in shapes:
        parameter = nn.Parameter((0.02 * torch.randn(shape, generator=generator)).to(device))
        parameter.grad = torch.randn(shape, generator=generator).to(device)
        parameters.append(parameter)
    return parameters


def _milliseconds(step: Callable[[], Any], device: str) -> float:
    _wait_for(device)
    start = time.perf_counter()
    step()
    _wait_for(device)
    return 1e3 * (time.perf_counter() - start)


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


if __name__ == "__main__":
    main()
