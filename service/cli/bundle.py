"""`spectune bundle` and `spectune replay`: a campaign as one file, and whether its best trials come out the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from service.campaign.best import own_best
from service.campaign.leaderboard import leaderboard
from service.campaign.numbers import number_text
from service.cli.consoles import output_console, print_table
from service.cli.run import DEFAULT_DATA_DIR, DataDirOption
from service.cli.stored import CampaignArgument, read_stored
from service.errors import BundleError, DataDirectoryError, NothingToShowError
from service.findings.bundle import Bundle, BundledTrial, read_bundle, write_bundle

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
    try:
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        draft.write_bytes(content)
        draft.replace(file)
    except OSError as error:
        raise DataDirectoryError(
            f"the bundle cannot be written ({os.strerror(error.errno or 0)}): got {file}"
        ) from error
    typer.echo(f"{file}: {len(stored.trials)} trials, {len(content)} bytes")


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
        numbers = (
            number_text(came.expected, digits=6),
            number_text(came.value, digits=6),
            f"{came.deviation:.1e}",
            f"{came.largest:.1e}",
        )
        table.add_row(trial.arm, str(trial.number), *numbers, "[red]differs[/]" if is_off else "the same")
    console = output_console()
    print_table(console, table)
    console.print(f"{len(chosen) - num_off} of {len(chosen)} trials came out within {tolerance:g} of what they were")
    raise typer.Exit(EXIT_NOT_REPRODUCED if num_off else 0)


def best_trials(found: Bundle) -> list[BundledTrial]:
    """Choose the trials of each arm's own best point."""
    specification, trials = found.specification, {trial.number: trial for trial in found.trials}
    names = [arm.name for arm in specification.arms]
    outcomes = [trial.outcome(arm=names.index(trial.arm)) for trial in found.trials]
    standings = leaderboard(outcomes, num_arms=len(names), mode=specification.objective.mode)
    best = [point for standing in standings if (point := own_best(standing)) is not None]
    return [trials[number] for point in best for number in point.standing.trials]
