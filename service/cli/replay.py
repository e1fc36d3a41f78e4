"""`spectune replay`: whether the best trials of a bundle come out as they were, and how far they do not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from spectune.service.campaign.analysis.executions import machine_name
from spectune.service.campaign.model.numbers import to_json
from spectune.service.cli.bundle import best_trials
from spectune.service.errors import BundleError, NothingToShowError
from spectune.service.findings.bundle import Bundle, read_bundle

if TYPE_CHECKING:
    from spectune.service.driver.replay import Replayed

TOLERANCE = 0.01
EXIT_NOT_REPRODUCED = 1


def replay(
    file: Annotated[Path, typer.Argument(metavar="BUNDLE", help="What `spectune bundle` wrote.")],
    everything: Annotated[
        bool, typer.Option("--all", help="Every trial, not only those of each arm's best point.")
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", min=0.0, help="How far the last objective may lie from what it was, relatively."),
    ] = TOLERANCE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Train a bundle's best trials once more, as a worker does.

    The exit status is 0 if all are within the tolerance.
    On a processor with the same instructions the values come out to the last bit. On another one this says how far
    they lie apart, and which differences between arms are smaller than that.
    """
    from spectune.service.driver.replay import replay_trials

    try:
        found = read_bundle(file.read_bytes())
    except OSError as error:
        raise BundleError(f"the bundle cannot be read ({os.strerror(error.errno or 0)}): got {file}") from error
    chosen = [trial for trial in found.trials if trial.curve] if everything else best_trials(found)
    if not chosen:
        raise NothingToShowError(f"no point of the bundle has completed: got {file}")
    replayed = list(_with_progress(replay_trials(file, found, chosen), len(chosen)))
    replayed.sort(key=lambda each: each.trial.number)
    num_off = sum(each.deviation > tolerance for each in replayed)
    if as_json:
        sys.stdout.write(json.dumps(_document(found, replayed, tolerance), allow_nan=False) + "\n")
    else:
        _show(found, replayed, tolerance)
    raise typer.Exit(EXIT_NOT_REPRODUCED if num_off else 0)


def undecided_pairs(found: Bundle, replayed: Sequence[Replayed]) -> list[tuple[str, str]]:
    """Return the pairs of arms whose means lie closer together than one of them lies from what it was."""
    values: dict[str, list[Replayed]] = {}
    for each in replayed:
        values.setdefault(each.trial.arm, []).append(each)
    mean = {arm: fmean(each.expected for each in some) for arm, some in values.items()}
    apart = {arm: max(abs(each.value - each.expected) for each in some) for arm, some in values.items()}
    arms = [arm.name for arm in found.specification.arms if arm.name in values]
    return [
        (first, second)
        for index, first in enumerate(arms)
        for second in arms[index + 1 :]
        if abs(mean[first] - mean[second]) < max(apart[first], apart[second])
    ]


def _with_progress(replayed: Iterable[Replayed], total: int) -> Iterator[Replayed]:
    """Show on standard error how many trials are done; off a terminal, a line says that it begins."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.print(f"training {total} trials once more", soft_wrap=True)
    columns = (TextColumn("training once more"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield from progress.track(replayed, total=total)


def _show(found: Bundle, replayed: Sequence[Replayed], tolerance: float) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table("arm", "trial", "was", "is", "deviation", "largest on the way", "")
    for each in replayed:
        numbers = (f"{each.expected:.6g}", f"{each.value:.6g}", f"{each.deviation:.1e}", f"{each.largest:.1e}")
        table.add_row(each.trial.arm, str(each.trial.number), *numbers, _verdict(each, tolerance))
    console.print(table)
    for line in _lines(found, replayed, tolerance):
        console.print(line, markup=False)


def _verdict(replayed: Replayed, tolerance: float) -> str:
    if replayed.failure:
        return "[red]failed[/]"
    if replayed.deviation > tolerance:
        return "[red]differs[/]"
    return "identical" if replayed.is_identical else f"within {tolerance:g}"


def _lines(found: Bundle, replayed: Sequence[Replayed], tolerance: float) -> Iterator[str]:
    num_identical = sum(each.is_identical for each in replayed)
    num_within = sum(each.deviation <= tolerance for each in replayed)
    yield f"{num_identical} of {len(replayed)} trials are identical to the last bit, {num_within} within {tolerance:g}"
    for each in replayed:
        if each.failure:
            yield f"trial {each.trial.number} failed: {each.failure.strip().splitlines()[-1]}"
    if num_identical < len(replayed):
        yield _machines(replayed)
        for first, second in undecided_pairs(found, replayed):
            yield f"the difference between {first} and {second} is smaller than that"


def _machines(replayed: Sequence[Replayed]) -> str:
    then = {machine_name(execution) for each in replayed for execution in each.trial.executions}
    now = {machine_name(each.execution) for each in replayed}
    if not then:
        return f"the bundle does not say on what it was trained; this is {', '.join(sorted(now))}"
    if then == now:
        return f"trained then and now on {', '.join(sorted(now))}"
    return f"trained on {', '.join(sorted(then))} then, on {', '.join(sorted(now))} now, which rounds differently"


def _document(found: Bundle, replayed: Sequence[Replayed], tolerance: float) -> dict[str, Any]:
    return {
        "tolerance": tolerance,
        "num_trials": len(replayed),
        "num_identical": sum(each.is_identical for each in replayed),
        "num_within": sum(each.deviation <= tolerance for each in replayed),
        "smaller_differences": [list(pair) for pair in undecided_pairs(found, replayed)],
        "trials": [
            {
                "number": each.trial.number,
                "arm": each.trial.arm,
                "was": to_json(each.expected),
                "is": to_json(each.value),
                "deviation": to_json(each.deviation),
                "largest_deviation": to_json(each.largest),
                "executions": [dict(execution) for execution in each.trial.executions],
                "execution": dict(each.execution),
                "failure": each.failure,
            }
            for each in replayed
        ],
    }
