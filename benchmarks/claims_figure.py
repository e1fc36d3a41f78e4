"""The picture of benchmarks/claims.py: one panel a claim."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw(results: Mapping[str, Any], *, problems: Sequence[str], path: Path) -> None:
    """Draw one panel a claim: medians as lines, smallest to largest seed as bands."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    for contestant, curves in results["regression"].items():
        label = f"{contestant} ({curves['lr']:g})"
        _band(axes[0], curves["steps"], [list(each) for each in zip(*curves["gaps"], strict=True)], label)
    axes[0].set(yscale="log", xlabel="step", ylabel="f − f*", title="Matrix regression 100 x 20")
    for axis, problem in zip(axes[1:], problems, strict=True):
        for method, by_condition in results[problem].items():
            _band(axis, list(map(float, by_condition)), [each["steps"] for each in by_condition.values()], method)
        axis.set(xscale="log", yscale="log", xlabel="condition number κ", ylabel="steps to 1e-6")
    axes[1].set_title("Matrix factorisation, every mode (aligned start)")
    axes[2].set_title("Linear attention, excess loss")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _band(axis: Any, places: Sequence[float], values: Sequence[Sequence[float]], label: str) -> None:
    finite = [(place, each) for place, each in zip(places, values, strict=True) if all(map(math.isfinite, each))]
    if not finite:
        axis.plot([], [], label=f"{label}: never")
        return
    where = [place for place, _ in finite]
    (line,) = axis.plot(where, [statistics.median(each) for _, each in finite], marker=".", label=label)
    lowest, highest = [min(each) for _, each in finite], [max(each) for _, each in finite]
    axis.fill_between(where, lowest, highest, alpha=0.2, color=line.get_color())
