"""What the papers claim about convergence, in small: a picture and a JSON file, three seeds, spread shown.

    python -m benchmarks.claims --out benchmarks/results/claims          (a few minutes on one core)

regression      PolarGrad's gap falls geometrically with a constant learning rate, Muon's stays on a plateau, decay
                takes it down (arXiv 2505.21799, 6.1; 100 x 20 in place of 500 x 100).
factorization   Steps until every mode is right to 1e-6, κ from 10 to 1000, for spectral descent (the simplified Muon),
                gradient descent and Adam, each at its own best lr x decay (arXiv 2601.13474, aligned start).
attention       Steps until the excess loss is 1e-6 of the first one, the same way.

Everything is fp64. Steps are counted by training all points of a grid and all seeds at once, as a stack of matrices;
gradient descent on the population's quadratic loss is also known in closed form, which is what counts its steps there:
its eigenvalue i has error (1 − η λ_i² γ_i)^t, and t can be 10⁸.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims_figure import draw
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.trainers import Schedule, SoloTrial, TrialSetting
from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks import LinearAttention, MatrixFactorization, MatrixRegression
from spectune.trainers.tasks.matrices import geometric

SEEDS = (0, 1, 2)
CONDITIONS = (10.0, 31.6, 100.0, 316.0, 1000.0)
SIZE = 40
LOST = 1e6
TARGET = 1e-6
REGRESSION_STEPS, REGRESSION_POINTS = 3000, 60
SPECTRAL_RATES = tuple(0.05 * twentieths for twentieths in range(2, 14))
SPECTRAL_DECAYS = (0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
ADAM_DECAYS = (0.99, 0.995, 0.999, 0.9995, 1.0)


@dataclass(frozen=True)
class Method:
    """An optimizer of the sweeps: its grid, how long it may take, and its update for a stack of matrices."""

    name: str
    rates: tuple[float, ...]
    decays: tuple[float, ...]
    steps: int
    start: Callable[[], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Arrival:
    """The best point of a grid, and the steps that each seed took there."""

    rate: float
    decay: float
    steps: tuple[float, ...]


def spectral_descent() -> Callable[[Tensor], Tensor]:
    """Make the update of spectral descent: the polar factor."""
    return lambda gradient: polar_factor(gradient, solver="svd")


def gradient_descent() -> Callable[[Tensor], Tensor]:
    """Make the update of gradient descent."""
    return lambda gradient: gradient


def adam() -> Callable[[Tensor], Tensor]:
    """Make the update of Adam with torch's defaults, its own state included."""
    first, second, count = torch.zeros(()), torch.zeros(()), 0

    def update(gradient: Tensor) -> Tensor:
        nonlocal first, second, count
        count += 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient * gradient
        return first / (1 - 0.9**count) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)

    return update


def steps_to_target(
    method: Method,
    parameters: Sequence[Tensor],
    gradients: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    error: Callable[[Sequence[Tensor]], Tensor],
) -> Arrival:
    """Count the steps of each seed at the grid's best point: where the last of the seeds arrives first.

    Args:
        method: What moves the parameters.
        parameters: [1, seeds, rows, columns] each.
        gradients: Gives theirs, of the same shapes with the grid in front.
        error: Gives what must fall below `TARGET`, [grid, seeds].

    Returns:
        Infinite steps where no point of the grid takes all seeds there.
    """
    grid = torch.tensor([(rate, decay) for rate in method.rates for decay in method.decays], dtype=torch.float64)
    rates, decays = grid.mT[:, :, None, None, None]
    here = [each.expand(len(grid), *each.shape[1:]).clone() for each in parameters]
    updates = [method.start() for _ in here]
    arrived = torch.full((len(grid), here[0].shape[1]), math.inf, dtype=torch.float64)
    for step in range(method.steps):
        moved = zip(here, gradients(here), updates, strict=True)
        here = [x - rates * decays**step * update(gradient) for x, gradient, update in moved]
        here = [torch.nan_to_num(x, nan=LOST).clamp(-LOST, LOST) for x in here]  # a lost point stays lost, finitely
        arrived = torch.where((error(here) < TARGET) & arrived.isinf(), float(step + 1), arrived)
        if arrived.isfinite().all(dim=1).any():
            break
    best = int(arrived.amax(dim=1).argmin())
    return Arrival(float(grid[best, 0]), float(grid[best, 1]), tuple(arrived[best].tolist()))


def factorization(condition: float, method: Method) -> Arrival:
    """Count steps until every mode of the product is right to the target."""
    tasks = [MatrixFactorization(condition=condition, start="aligned", problem_seed=seed, size=SIZE) for seed in SEEDS]
    models = [task.build(generator_for("model", 0)).double() for task in tasks]
    target = torch.stack([task.batch(0, 0)[0] for task in tasks])
    start = [torch.stack([getattr(model, side).detach() for model in models])[None] for side in ("left", "right")]
    bases = [each / each.norm(dim=-2, keepdim=True) for each in start]
    values = geometric(tasks[0].rank, condition)

    def gradients(here: Sequence[Tensor]) -> Sequence[Tensor]:
        residual = here[0] @ here[1].mT - target
        return residual @ here[1], residual.mT @ here[0]

    def error(here: Sequence[Tensor]) -> Tensor:
        modes = ((bases[0].mT @ here[0]) @ (here[1].mT @ bases[1])).diagonal(dim1=-2, dim2=-1)
        largest: Tensor = (modes / values - 1.0).abs().amax(dim=-1)
        return largest

    return steps_to_target(method, start, gradients, error)


def attention(condition: float, method: Method) -> Arrival:
    """Count steps until the excess loss is the target's share of the first one."""
    task = LinearAttention(condition=condition)
    covariance, product = (torch.stack(parts) for parts in zip(*[task.batch(0, seed) for seed in SEEDS], strict=True))
    solution = torch.linalg.solve(product, covariance)  # Γ⁻¹, as Λ and Γ commute
    unit = torch.linalg.matrix_norm(solution, ord=2)[:, None, None]

    def excess(query: Tensor) -> Tensor:
        distance = query * unit - solution
        twice: Tensor = (distance * (covariance @ distance @ product)).sum(dim=(-2, -1))
        return twice

    first = excess(torch.zeros_like(solution)[None])

    def gradients(here: Sequence[Tensor]) -> Sequence[Tensor]:
        return (covariance @ (here[0] * unit) @ product - covariance @ covariance,)

    if method.name == "gradient descent":
        return quadratic_descent(condition, task.size, task.examples)
    return steps_to_target(method, [torch.zeros_like(solution)[None]], gradients, lambda here: excess(here[0]) / first)


def quadratic_descent(condition: float, size: int, examples: int) -> Arrival:
    """Count gradient descent's steps on the population loss, from its closed form, over fractions of 2/L."""
    values = geometric(size, condition)
    gamma = (1.0 + 1.0 / examples) * values + values.sum() / examples
    curvature, weight = values * values * gamma, values * values / gamma
    counts = {
        fraction: _closed_form(1.0 - fraction * 2.0 / curvature.max() * curvature, weight / weight.sum())
        for fraction in (0.3, 0.5, 0.7, 0.9, 0.95)
    }
    best = min(counts, key=lambda fraction: counts[fraction])
    return Arrival(best, 1.0, (counts[best],) * len(SEEDS))  # the basis plays no part


def _closed_form(factors: Tensor, weight: Tensor) -> float:
    low, high = 0, 1
    while (weight * factors.abs() ** (2 * high)).sum() >= TARGET:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if (weight * factors.abs() ** (2 * middle)).sum() < TARGET else (middle, high)
    return float(high)


METHODS: Mapping[str, Mapping[str, Method]] = {
    "factorization": {
        "spectral descent": Method("spectral descent", SPECTRAL_RATES, SPECTRAL_DECAYS, 1000, spectral_descent),
        "gradient descent": Method("gradient descent", (0.3, 0.6, 0.9), (1.0,), 60_000, gradient_descent),
        "adam": Method("adam", (0.003, 0.01, 0.03, 0.1), ADAM_DECAYS, 6000, adam),
    },
    "attention": {
        "spectral descent": Method("spectral descent", SPECTRAL_RATES, SPECTRAL_DECAYS, 1000, spectral_descent),
        "gradient descent": Method("gradient descent", (), (), 0, gradient_descent),
        "adam": Method("adam", (0.003, 0.01, 0.03, 0.1), ADAM_DECAYS, 6000, adam),
    },
}
PROBLEMS: Mapping[str, Callable[[float, Method], Arrival]] = {"factorization": factorization, "attention": attention}

EXACT: Mapping[str, Any] = {"compute_dtype": "float64"}  # as everything of these problems

CONTESTANTS: Mapping[str, tuple[str, Mapping[str, Any], Schedule, tuple[float, ...]]] = {
    "polargrad, constant lr": ("polargrad", {"momentum": 0.0}, Schedule("constant"), (2e-5, 4e-5, 6e-5, 7e-5)),
    "muon, constant lr": ("muon", EXACT, Schedule("constant"), (0.001, 0.003, 0.01)),
    "muon, decayed": ("muon", EXACT, Schedule("cosine"), (0.001, 0.003, 0.01)),
    "adam, constant lr": ("adamw", {"weight_decay": 0.0}, Schedule("constant"), (0.003, 0.01, 0.03)),
}


def regression(contestant: str) -> dict[str, Any]:
    """Train at every rate and seed; give the gaps along the way at the rate that ends lowest."""
    optimizer, fixed, schedule, rates = CONTESTANTS[contestant]
    task = MatrixRegression(rows=100, columns=20, samples=200, outputs=50)
    curves = {rate: [_gaps(task, optimizer, {**fixed, "lr": rate}, schedule, seed) for seed in SEEDS] for rate in rates}
    best = min(rates, key=lambda rate: statistics.median(curve[-1] for curve in curves[rate]))
    return {"lr": best, "steps": _report_steps(), "gaps": curves[best]}


def _report_steps() -> list[int]:
    return [REGRESSION_STEPS * point // REGRESSION_POINTS for point in range(REGRESSION_POINTS + 1)]


def _gaps(
    task: MatrixRegression, optimizer: str, hyperparameters: Mapping[str, Any], schedule: Schedule, seed: int
) -> list[float]:
    setting = TrialSetting(task, optimizer, hyperparameters, schedule, REGRESSION_STEPS, seed, seed, precision="fp64")
    trial = SoloTrial(setting)
    gaps = []
    for step in _report_steps():
        trial.advance(step)
        gap = trial.report()["gap"]
        gaps.append(gap if math.isfinite(gap) else math.inf)
    return gaps


def verdicts(results: Mapping[str, Any]) -> dict[str, Any]:
    """Hold the figures against the claims."""
    found: dict[str, Any] = {}
    for contestant, curves in results["regression"].items():
        found[f"regression, {contestant}: decades per 1000 steps, second half"] = _slope(curves)
    for problem in PROBLEMS:
        for method, by_condition in results[problem].items():
            medians = [statistics.median(each["steps"]) for each in by_condition.values()]
            ratio = medians[-1] / medians[0] if math.isfinite(medians[0]) else math.inf
            found[f"{problem}, {method}: steps at the largest κ over those at the smallest"] = ratio
            found[f"{problem}, {method}: spread of steps over κ"] = max(medians) / min(medians) - 1.0
    return found


def _slope(curves: Mapping[str, Any]) -> float:
    half = REGRESSION_POINTS // 2
    step = 1000.0 / (REGRESSION_STEPS / 2)
    return statistics.median(
        step * math.log10(max(gaps[half], 1e-300) / max(gaps[-1], 1e-300)) for gaps in curves["gaps"]
    )


def _finite(value: Any) -> Any:
    """Write infinity, for what never arrived, as null, which JSON has."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main() -> None:
    """Run all three, print the verdicts, write JSON and picture."""
    parser = argparse.ArgumentParser(description="The papers' claims about convergence, in small.")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/claims"), help="without ending")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    results: dict[str, Any] = {"seeds": SEEDS, "target": TARGET, "regression": {}}
    for contestant in CONTESTANTS:
        results["regression"][contestant] = regression(contestant)
        print(f"regression {contestant}: lr {results['regression'][contestant]['lr']:g}", flush=True)
    for problem, solve in PROBLEMS.items():
        results[problem] = {name: {} for name in METHODS[problem]}
        for name, method in METHODS[problem].items():
            for condition in CONDITIONS:
                arrival = solve(condition, method)
                results[problem][name][f"{condition:g}"] = asdict(arrival)
                print(f"{problem} {name} κ = {condition:g}: {arrival}", flush=True)
    results["verdicts"] = verdicts(results)
    for claim, value in results["verdicts"].items():
        print(f"{claim}: {value:.3g}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(
        json.dumps(_finite(results), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    draw(results, problems=tuple(PROBLEMS), path=out.with_suffix(".png"))


if __name__ == "__main__":
    main()
