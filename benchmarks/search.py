"""How many steps each way to search needs on a landscape whose optimum is known: samplers with and without stopping.

    python -m benchmarks.search [--seeds 10] [--points 128] [--only tpe] [--json FILE]

Nothing is trained. A configuration of Muon's default space, lr in [0.002, 0.1], has the loss curve

    L(t) = f + (5 - f) exp(-4 v t / T),    f = 2 + sum of squared distances to the optimum on the scale of the search,
    v = (lr / lr*)^0.3 within [0.3, 1.5],

so that low learning rates look worse early than they are. Reached is a final value within the best 1 % of the range
between the smallest and the largest of 20 000 random points. Cost is the steps trained by then, as device seconds are;
a search that never gets there costs all its steps (told as a lower bound by `reached`). Medians over search seeds; the
ratio is random search without stopping over the line, above 1 where the line is cheaper.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from spectune.search_spaces import Space
from spectune.search_spaces.domains import LogUniform
from spectune.search_spaces.muon import MUON
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.search.samplers import SamplerName
from spectune.service.campaign.stopping.halving import RungOutcome, StoppingRule, SuccessiveHalving
from spectune.service.campaign.stopping.hyperband import Hyperband
from spectune.service.campaign.stopping.median import Median
from spectune.service.campaign.study import ArmStudy

STEPS: Final = 90
RUNGS: Final = (10, 30)
LANES: Final = 4
SPACE: Final = Space({"lr": LogUniform(2e-3, 1e-1), "momentum": MUON["momentum"], "weight_decay": MUON["weight_decay"]})
CASES: Final[tuple[tuple[SamplerName, str], ...]] = (
    ("random", "none"),
    ("random", "successive_halving"),
    ("sobol", "none"),
    ("tpe", "none"),
    ("tpe", "successive_halving"),
    ("tpe", "hyperband"),
    ("tpe", "median"),
    ("cmaes", "successive_halving"),
    ("gp", "successive_halving"),
)


def final_part(config: Mapping[str, Any]) -> float:
    """Return f: 2 at lr 0.02, momentum 0.95 and weight decay 0.1, and more away from there."""
    decay = config["weight_decay"]
    off_decay = 0.8 if decay == 0 else math.log10(decay / 0.1)
    return (
        2 + 2 * math.log10(config["lr"] / 0.02) ** 2 + math.log10((1 - config["momentum"]) / 0.05) ** 2 + off_decay**2
    )


def loss(config: Mapping[str, Any], step: int) -> float:
    """Return L(t) of a configuration."""
    final = final_part(config)
    speed = min(max((config["lr"] / 0.02) ** 0.3, 0.3), 1.5)
    return final + (5 - final) * math.exp(-4 * speed * step / STEPS)


def target() -> float:
    """Return the value below which the best 1 % of the range lies."""
    generator = np.random.default_rng(0)
    values = [loss(SPACE.decode(generator.random(SPACE.num_axes).tolist()), STEPS) for _ in range(20_000)]
    return min(values) + 0.01 * (max(values) - min(values))


def steps_to(goal: float, sampler: SamplerName, rule: str, *, points: int, search_seed: int) -> tuple[int, bool]:
    """Count the steps trained until a final value reaches the goal, and tell whether one did."""
    study = ArmStudy(SPACE, {}, sampler=sampler, points=points, search_seed=search_seed)
    stopping = _rule(rule)
    running: dict[int, tuple[Mapping[str, Any], int]] = {}
    used = 0
    while True:
        while len(running) < LANES and (point := study.ask()) is not None:
            running[point.index] = (point.config, 0)
            if stopping is not None:
                stopping.begin(point.index)
        if not running:
            return used, False
        for index, (config, at) in list(running.items()):
            step = next(each for each in (*RUNGS, STEPS) if each > at)
            used += step - at
            value = loss(config, step)
            study.report(index, 0, step, value)
            is_last = step == STEPS
            is_kept = is_last or stopping is None or _goes_on(stopping, index, step, value)
            if is_kept and not is_last:
                running[index] = (config, step)
                continue
            outcome = TrialState.COMPLETED if is_last else TrialState.STOPPED
            study.finish(index, 0, outcome, value if is_last else None)
            del running[index]
            if stopping is not None:
                stopping.end(index, outcome)
            if is_last and value <= goal:
                return used, True


def _goes_on(stopping: StoppingRule, trial: int, step: int, value: float) -> bool:
    return stopping.submit(step, [(trial, value)])[trial].outcome is RungOutcome.KEEP


def _rule(name: str) -> StoppingRule | None:
    if name == "successive_halving":
        return SuccessiveHalving(RUNGS, reduction_factor=3)
    if name == "hyperband":
        return Hyperband(RUNGS, reduction_factor=3)
    return Median(RUNGS) if name == "median" else None


def main() -> None:
    """Run every case, print as it goes, write JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--points", type=int, default=128)
    parser.add_argument("--only", default="", help="run the samplers whose name contains this, beside random search")
    parser.add_argument("--json", type=Path, help="write the table here, too")
    options = parser.parse_args()
    goal = target()
    print(f"goal {goal:.4f}, {options.points} points of {STEPS} steps, {options.seeds} search seeds, {LANES} lanes")
    lines: list[dict[str, Any]] = []
    for sampler, rule in CASES:
        if (sampler, rule) != CASES[0] and options.only not in sampler:
            continue
        found = [
            steps_to(goal, sampler, rule, points=options.points, search_seed=seed) for seed in range(options.seeds)
        ]
        cost = median(steps for steps, _ in found)
        ratio = lines[0]["steps"] / cost if lines else 1.0
        reached = sum(is_there for _, is_there in found)
        lines.append({"sampler": sampler, "stopping": rule, "steps": cost, "reached": reached, "ratio": ratio})
        print(f"{sampler:8} {rule:20} {cost:8.0f} steps  reached {reached}/{len(found)}  {ratio:6.2f}x")
    if options.json is not None:
        about = {"goal": goal, "points": options.points, "seeds": options.seeds, "lanes": LANES, "steps": STEPS}
        options.json.write_text(json.dumps({"about": about, "lines": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
