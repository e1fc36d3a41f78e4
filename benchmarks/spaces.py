"""Check that the best learning rate lies inside the default space of each optimizer, preset by preset.

    python -m benchmarks.spaces [--presets polargrad-6.1 bytes-0.2m] [--optimizers muon] [--steps 100] [--json FILE]

The learning rate takes values on a logarithmic grid, four a decade, from a quarter of the space's lower bound to four
times its upper one, and further wherever the best stands at an end; the other hyperparameters stand in the middle of
their ranges, without weight decay, under a cosine schedule, one seed. `inside` says whether the best of all lies within
the bounds, `cost` how much worse the best within the bounds is, relative to the best of all; `good` are the lowest and
the highest rate that ends within a tenth of the best, or where that is all but zero, within ten times it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.kept import keep_lines
from spectune.search_spaces import DEFAULT_SPACES, Space, default_space
from spectune.search_spaces.domains import LogUniform
from spectune.trainers import Schedule, TrialSetting, task_from_options
from spectune.trainers.engines.cohorts import cohort_for
from spectune.trainers.tasks.presets import PRESETS

SMALL: Final = tuple(name for name in PRESETS if name not in ("bytes-5m", "bytes-26m", "gpt2-small", "qwen2.5-0.5b"))
PER_DECADE: Final = 4
BEYOND: Final = 4.0
STRETCH: Final = 6  # more rates at an end where the best stands
MOST_STRETCHES: Final = 8
ALL_BUT_ZERO: Final = 1e-3


def rates(space: Space) -> tuple[list[float], tuple[float, float]]:
    """Return the learning rates to try, and the bounds of the space."""
    domain = space["lr"]
    assert isinstance(domain, LogUniform), f"a default space has its lr on a log scale: got {domain}"
    low, high = domain.extremes()
    start, end = math.log10(low / BEYOND), math.log10(high * BEYOND)
    number = round((end - start) * PER_DECADE) + 1
    return [10 ** (start + (end - start) * index / (number - 1)) for index in range(number)], (low, high)


def sweep(preset: str, optimizer: str, lrs: list[float], *, steps: int) -> dict[float, float]:
    """Return the loss of each learning rate, of further ones too where the best stands at an end."""
    found = dict(zip(lrs, losses(preset, optimizer, lrs, steps=steps), strict=True))
    for _ in range(MOST_STRETCHES):
        lowest, highest, best = min(found), max(found), min(found, key=lambda lr: found[lr])
        factor = 10 ** (1 / PER_DECADE)
        if best == lowest or math.isinf(found[best]):
            further = [lowest / factor ** (index + 1) for index in range(STRETCH)]
        elif best == highest:
            further = [highest * factor ** (index + 1) for index in range(STRETCH)]
        else:
            break
        found |= zip(further, losses(preset, optimizer, further, steps=steps), strict=True)
    return found


def losses(preset: str, optimizer: str, lrs: list[float], *, steps: int) -> list[float]:
    """Train a trial with each learning rate; give their last validation losses, infinite where one diverged."""
    space = default_space(optimizer, preset)
    middle = space.config(space.coordinates_at([0.5] * space.num_axes)) | {"weight_decay": 0.0}
    name, options = PRESETS[preset]
    settings = [
        TrialSetting(
            task=task_from_options(name, dict(options)),
            optimizer=optimizer,
            hyperparameters=middle | {"lr": lr},
            schedule=Schedule(shape="cosine"),
            steps=steps,
            seed=0,
            data_seed=0,
        )
        for lr in lrs
    ]
    cohort = cohort_for(settings[0], is_alone=False)
    for trial, setting in enumerate(settings):
        cohort.admit(trial, setting)
    cohort.advance(dict.fromkeys(range(len(lrs)), steps))
    measured = cohort.report(range(len(lrs)))
    return [_loss(measured[trial], cohort.reason(trial)) for trial in range(len(lrs))]


def _loss(measured: dict[str, float] | str, reason: str) -> float:
    value = math.inf if reason or isinstance(measured, str) else measured["validation_loss"]
    return value if math.isfinite(value) else math.inf


def check(preset: str, optimizer: str, *, steps: int) -> dict[str, Any]:
    """Compare the best learning rate with the bounds."""
    lrs, (low, high) = rates(default_space(optimizer, preset))
    found = sweep(preset, optimizer, lrs, steps=steps)
    best = min(found, key=lambda lr: found[lr])
    within = min(loss for lr, loss in found.items() if low <= lr <= high)
    near = max(1.1 * found[best], 10 * found[best] if found[best] < ALL_BUT_ZERO else 0.0)
    good = [lr for lr, loss in found.items() if loss <= near]
    return {
        "preset": preset,
        "optimizer": optimizer,
        "steps": steps,
        "bounds": [low, high],
        "best_lr": best,
        "best_loss": found[best],
        "good": [min(good), max(good)],
        "inside": low <= best <= high,
        "cost": (within - found[best]) / abs(found[best]),
    }


def main() -> None:
    """Check and print; after every preset the file's lines of what was measured again are replaced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(SMALL))
    parser.add_argument("--optimizers", nargs="+", choices=DEFAULT_SPACES, default=list(DEFAULT_SPACES))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    print(f"{'preset':26} {'optimizer':17} {'best lr':>9}  {'bounds':20}  {'good':20} inside   cost", flush=True)
    for preset in arguments.presets:
        for optimizer in arguments.optimizers:
            line = check(preset, optimizer, steps=arguments.steps)
            lines.append(line)
            bounds, good = ("[{:.3g}, {:.3g}]".format(*line[each]) for each in ("bounds", "good"))
            shown = f"{preset:26} {optimizer:17} {line['best_lr']:9.3g}  {bounds:20}  {good:20}"
            print(f"{shown} {'yes' if line['inside'] else 'NO':6} {line['cost']:6.1%}", flush=True)
        if arguments.json is not None:
            keep_lines(arguments.json, lines, of=("preset", "optimizer"))


if __name__ == "__main__":
    main()
