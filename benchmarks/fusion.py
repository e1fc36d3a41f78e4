"""Time a step of K trials trained as one beside one trial alone: one process, interleaved, medians, ratios.

    python -m benchmarks.fusion [--device cuda] [--threads 1] [--repeats 9] [--only TITLE] [--json FILE]

For every task and size, lines are: the plain PyTorch loop with torch.optim.Muon (AdamW for what is no hidden matrix),
the solo engine, and the population engine with K = 1, 2, 4 ... 64 members that differ in seed and learning rate, with
one data seed for all and with one each. In a round each line takes some steps, in an order of the round's own. A time
is the median over the rounds, of a step for each member; a ratio is the median of the rounds' ratios, above 1 where
the line is faster. All lines have a worker's environment, and one thread, which is a worker's default.

Below a table stand the planner's choice with the gain that it predicted and the one that the table shows for it, and
memory: what K members hold (weights and optimizer states) and what torch allocates at most in a step beside that, for
each of them, beside the same of one trial alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn

from benchmarks.peak_memory import peak_bytes
from spectune.optimizers import split
from spectune.service.driver.environment import VARIABLES
from spectune.trainers import Outcome, Schedule, SoloTrial, TrialSetting, task_from_options
from spectune.trainers.engines.plan import make_plan
from spectune.trainers.engines.population import Population
from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.task import batch_is_fixed, place
from spectune.trainers.worker.arithmetic import Arithmetic, pin_arithmetic

Advance: TypeAlias = Callable[[int], Any]
"""Train until so many steps are taken in all."""

NUMBERS: Final = (1, 2, 4, 8, 16, 32, 64)
WARMUP_STEPS: Final = 5
ROUND_SECONDS: Final = 0.03
"""What a line should at least take in a round, so that its time is not the clock's."""
PLAIN, SOLO = "torch.optim.Muon, plain loop", "alone"


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        task: A task's name.
        options: Of the task.
        lr: Of the first member; the others' are up to twice that.
        fills_a_cpu: Whether it is left out on a CPU, where a step of one alone takes a second.
    """

    task: str
    options: Mapping[str, Any]
    lr: float = 0.01
    fills_a_cpu: bool = False

    def setting(self, member: int = 0, *, data_seed: int = 0, device: str = "cpu") -> TrialSetting:
        """Return a member's setting."""
        task = task_from_options(self.task, self.options)
        hyperparameters = {"lr": self.lr * (1 + member / max(NUMBERS)), "compute_dtype": "auto"}
        return TrialSetting(task, "muon", hyperparameters, Schedule(), 10**6, member, data_seed, device=device)


CASES: Final[dict[str, Case]] = {
    "matrix_completion 20x20": Case("matrix_completion", {"rows": 20, "columns": 20, "rank": 5}),
    "matrix_completion 50x50": Case("matrix_completion", {"rows": 50, "columns": 50, "rank": 5}),
    "matrix_completion 100x100": Case("matrix_completion", {"rows": 100, "columns": 100, "rank": 5}),
    "matrix_regression 50x20": Case("matrix_regression", {"rows": 50, "columns": 20, "samples": 100, "outputs": 50}),
    "matrix_logistic 50x20": Case(
        "matrix_logistic", {"rows": 50, "columns": 20, "samples": 1000, "outputs": 40, "batch_size": 100}
    ),
    "matrix_factorization 60, rank 5": Case("matrix_factorization", {}, lr=1e-3),
    "linear_attention 20": Case("linear_attention", {}),
    "language_model width 32": Case(
        "language_model", {"width": 32, "depth": 2, "heads": 2, "context": 32, "batch_size": 8}
    ),
    "language_model width 128, depth 4, context 256": Case(
        "language_model", {"width": 128, "depth": 4, "heads": 4, "context": 256, "batch_size": 16}, fills_a_cpu=True
    ),
    "vision_transformer width 32": Case("vision_transformer", {"width": 32, "depth": 2, "heads": 2, "batch_size": 16}),
}


def plain_loop(model: nn.Module, setting: TrialSetting) -> Advance:
    """Train a model as one does without any service: torch's optimizers, and no look at the numbers."""
    task, parts, lr = setting.task, split(model), setting.hyperparameters["lr"]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Muon([each for _, each in parts.matrices], lr=lr)]
    if parts.rest:
        optimizers.append(torch.optim.AdamW([each for _, each in parts.rest], lr=lr))
    fixed = place(task.batch(0, setting.data_seed), model) if batch_is_fixed(task) else None
    taken = 0

    def advance(until_step: int) -> None:
        nonlocal taken
        while taken < until_step:
            batch = place(task.batch(taken, setting.data_seed), model) if fixed is None else fixed
            task.loss(model, batch).backward()  # type: ignore[no-untyped-call]  # untyped in torch
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            taken += 1

    return advance


def together(case: Case, number: int, *, own_data: bool, device: str) -> Population:
    """Make a population of so many members."""
    population = Population()
    for member in range(number):
        population.admit(member, case.setting(member, data_seed=member if own_data else 0, device=device))
    return population


def _advance_of(population: Population) -> Advance:
    def advance(until_step: int) -> None:
        outcomes = population.advance(dict.fromkeys(population.trials, until_step))
        assert set(outcomes.values()) == {Outcome.REACHED}, "a member that leaves makes the others look faster"

    return advance


def contenders(case: Case, numbers: Sequence[int], device: str) -> dict[str, tuple[Advance, int]]:
    """Return every line's way to train, and its number of members."""
    first = case.setting(device=device)
    model = first.task.build(generator_for("model", first.seed)).to(device)
    lines: dict[str, tuple[Advance, int]] = {PLAIN: (plain_loop(model, first), 1), SOLO: (SoloTrial(first).advance, 1)}
    for number in numbers:
        for own_data in (False, True) if number > 1 else (False,):
            population = together(case, number, own_data=own_data, device=device)
            lines[_line(number, own_data=own_data)] = _advance_of(population), number
    return lines


def _line(number: int, *, own_data: bool) -> str:
    return f"K = {number}" + (", own data" if own_data else "")


def measure(case: Case, *, numbers: Sequence[int], device: str, repeats: int) -> list[dict[str, Any]]:
    """Return each line's median seconds of a member's step, and its median ratios against one trial alone."""
    lines = contenders(case, numbers, device)
    per_round = {}
    for name, (advance, _) in lines.items():
        advance(WARMUP_STEPS)
        seconds = _seconds(advance, 2 * WARMUP_STEPS, device)
        per_round[name] = max(round(ROUND_SECONDS * WARMUP_STEPS / seconds), 2)
    rounds = []
    for repeat in range(repeats):
        times = {}
        for name in random.Random(repeat).sample(list(lines), len(lines)):
            advance, number = lines[name]
            until_step = 2 * WARMUP_STEPS + (repeat + 1) * per_round[name]
            times[name] = _seconds(advance, until_step, device) / (per_round[name] * number)
        rounds.append(times)
    return [
        {
            "line": name,
            "members": number,
            "microseconds": 1e6 * median(times[name] for times in rounds),
            "against_alone": median(times[SOLO] / times[name] for times in rounds),
            "against_plain": median(times[PLAIN] / times[name] for times in rounds),
        }
        for name, (_, number) in lines.items()
    ]


def planned(case: Case, lines: Sequence[Mapping[str, Any]], *, most: int, device: str) -> dict[str, Any]:
    """Return the planner's choice, the gain it predicts, and the gain of that many in a table."""
    plan = make_plan(case.setting(device=device), most=most)
    gains = {line["line"]: line["against_alone"] for line in lines}
    chosen = SOLO if plan.num_members == 1 else _line(plan.num_members, own_data=False)
    return {"members": plan.num_members, "predicted": plan.gain, "achieved": gains[chosen], "why": plan.why}


def memory(case: Case, *, number: int, device: str) -> dict[str, Any]:
    """Return what so many members hold and what one holds alone: between steps, and at most in a step beside that."""
    alone, population = SoloTrial(case.setting(device=device)), together(case, number, own_data=False, device=device)
    advance = _advance_of(population)
    for each in (alone.advance, advance):
        each(3)
    state = alone.state()
    entries = [entry for of_parameter in state["optimizer"]["state"].values() for entry in of_parameter.values()]
    return {
        "members": number,
        "held": population.num_bytes,
        "held_by_one_alone": sum(map(_num_bytes, [*state["model"].values(), *entries])),
        "in_a_step": peak_bytes(lambda: advance(4), device),
        "in_a_step_of_one_alone": peak_bytes(lambda: alone.advance(4), device),
    }


def memory_ratio(found: Mapping[str, Any]) -> float:
    """Return what members need at most over as many times what one alone needs; the goal is at most 1.3."""
    needed = found["held"] + found["in_a_step"]
    return float(needed / (found["members"] * (found["held_by_one_alone"] + found["in_a_step_of_one_alone"])))


def _num_bytes(entry: Any) -> int:
    return entry.numel() * entry.element_size() if isinstance(entry, Tensor) else 0


def run(case: Case, *, numbers: Sequence[int], device: str, repeats: int) -> dict[str, Any]:
    """Measure all there is about a case."""
    lines = measure(case, numbers=numbers, device=device, repeats=repeats)
    plan = planned(case, lines, most=max(numbers), device=device)
    return {"lines": lines, "plan": plan, "memory": memory(case, number=max(numbers), device=device)}


def main() -> None:
    """Run every case, print as it goes, write JSON at the end."""
    options = _options()
    _take_workers_environment()
    pin_arithmetic(Arithmetic.FASTEST)
    torch.set_num_threads(options.threads)
    about = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"CPU {platform.machine()}",
        "threads": options.threads,
        "repeats": options.repeats,
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    numbers = [number for number in NUMBERS if number <= options.most]
    tables = {}
    for title, case in CASES.items():
        if options.only in title and not (case.fills_a_cpu and options.device == "cpu"):
            tables[title] = run(case, numbers=numbers, device=options.device, repeats=options.repeats)
            _show(title, tables[title])
    if options.json is not None:
        options.json.write_text(json.dumps({"about": about, "tables": tables}, indent=1) + "\n")


def _take_workers_environment() -> None:
    """Begin again with the variables that libraries read when they load, as every worker has them."""
    wanted = {each.name: each.value for each in VARIABLES if each.name.startswith("MALLOC_")}
    if not wanted.items() <= os.environ.items():
        os.execve(sys.executable, sys.orig_argv, os.environ | wanted)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--most", type=int, choices=NUMBERS[1:], default=NUMBERS[-1], help="the largest K")
    parser.add_argument("--only", default="", help="run the cases whose title contains this")
    parser.add_argument("--json", type=Path, help="write the tables here, too")
    return parser.parse_args()


def _show(title: str, table: Mapping[str, Any]) -> None:
    print(f"\n{title:40} a member's step     alone is 1   plain loop is 1")
    for line in table["lines"]:
        ratios = f"{line['against_alone']:9.2f}x  {line['against_plain']:14.2f}x"
        print(f"  {line['line']:38}{line['microseconds']:12.1f} us  {ratios}")
    plan, held, number = table["plan"], table["memory"], table["memory"]["members"]
    gains = f"predicted {plan['predicted']:.1f}x, achieved {plan['achieved']:.1f}x"
    print(f"  planned: {plan['members']} together, {gains}: {plan['why']}")
    each = f"{held['held'] / number:.0f} bytes, in a step {held['in_a_step'] / number:.0f} more"
    alone = f"{held['held_by_one_alone']} and {held['in_a_step_of_one_alone']}"
    print(f"  memory: each of {number} holds {each}; one alone {alone}: {memory_ratio(held):.2f}x", flush=True)


def _seconds(advance: Advance, until_step: int, device: str) -> float:
    _wait_for(device)
    start = time.perf_counter()
    advance(until_step)
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
