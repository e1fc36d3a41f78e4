"""`spectune bundle` and `spectune replay`: a campaign as one file, and whether its best trials come out the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.cli.run import DEFAULT_DATA_DIR, DataDirOption
from service.cli.stored import CampaignArgument, read_stored
from service.errors import BundleError, NothingToShowError
from service.findings.bundle import Bundle, BundledTrial, read_bundle, write_bundle
from service.written_files import write_output

TOLERANCE = 0.01
EXIT_NOT_REPRODUCED = 1


def bundle(
    campaign: CampaignArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it, as campaign.zip.")],
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Write a campaign into one file: specification, environment, seeds, curves and report, with checksums."""
    from service.campaign.catalog import installed_catalog
    from service.findings.documents import campaign_documents  # torch, Optuna and Plotly

    stored = read_stored(data_dir, campaign)
    documents = campaign_documents(stored.record, stored.trials, stored.observations, catalog=installed_catalog())
    content = write_bundle(documents, stored.specification, stored.trials, stored.observations)
    write_output(file, content, name="the bundle")
    typer.echo(f"{file}: {len(stored.trials)} trials, {len(content)} bytes", err=True)


def replay(
    file: Annotated[Path, typer.Argument(metavar="BUNDLE", help="What `spectune bundle` wrote.")],
    everything: Annotated[
        bool, typer.Option("--all", help="Every trial, not only those of each arm's best point.")
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", min=0.0, help="How far the last objective may lie from what it was, relatively."),
    ] = TOLERANCE,
) -> None:
    """Train a bundle's best trials once more, each alone; the exit status is 0 if all come out as they were."""
    from service.driver.replay import replay_trial  # torch

    try:
        found = read_bundle(file.read_bytes())
    except OSError as error:
        raise BundleError(f"the bundle cannot be read ({os.strerror(error.errno or 0)}): got {file}") from error
    chosen = [trial for trial in found.trials if trial.curve] if everything else best_trials(found)
    if not chosen:
        raise NothingToShowError(f"no point of the bundle has completed: got {file}")
    table = Table("arm", "trial", "was", "is", "deviation", "largest on the way", "")
    num_off = 0
    for trial in chosen:
        came = replay_trial(
            found.specification, arm=trial.arm, config=trial.config, seed_index=trial.seed_index, curve=trial.curve
        )
        is_off = came.deviation > tolerance
        num_off += is_off
        numbers = (f"{came.expected:.6g}", f"{came.value:.6g}", f"{came.deviation:.1e}", f"{came.largest:.1e}")
        table.add_row(trial.arm, str(trial.number), *numbers, "[red]differs[/]" if is_off else "the same")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"{len(chosen) - num_off} of {len(chosen)} trials came out within {tolerance:g} of what they were")
    raise typer.Exit(EXIT_NOT_REPRODUCED if num_off else 0)


def best_trials(found: Bundle) -> list[BundledTrial]:
    """Choose the trials of each arm's best point: those of the finals where there are any, else of the search."""
    metric, sign = (
        found.specification.objective.metric,
        1.0 if found.specification.objective.mode == "minimize" else -1.0,
    )
    chosen = []
    for arm in found.specification.arms:
        done = [each for each in found.trials if each.arm == arm.name and each.state == "COMPLETED" and each.curve]
        some = [each for each in done if each.phase == "final"] or [each for each in done if each.phase == "search"]
        points: dict[int, list[BundledTrial]] = {}
        for each in some:
            points.setdefault(each.point, []).append(each)
        if points:
            chosen += min(points.values(), key=lambda trials: sign * fmean(_last(trial)[metric] for trial in trials))
    return chosen


def _last(trial: BundledTrial) -> Mapping[str, float]:
    return trial.curve[max(trial.curve)]
