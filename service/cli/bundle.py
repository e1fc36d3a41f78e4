"""`spectune bundle`: a campaign as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectune.service.campaign.analysis.best import own_best
from spectune.service.campaign.analysis.leaderboard import leaderboard
from spectune.service.cli.run import DEFAULT_DATA_DIR, DataDirOption
from spectune.service.cli.stored import CampaignArgument, read_stored
from spectune.service.findings.bundle import Bundle, BundledTrial, write_bundle
from spectune.service.written_files import write_output


def bundle(
    campaign: CampaignArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it, as campaign.zip.")],
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Write a campaign into one file: specification, environment, seeds, curves and report, with checksums."""
    from spectune.service.campaign.specification.catalog import installed_catalog
    from spectune.service.findings.documents import campaign_documents  # torch, Optuna and Plotly

    stored = read_stored(data_dir, campaign)
    documents = campaign_documents(stored.record, stored.trials, stored.observations, catalog=installed_catalog())
    content = write_bundle(documents, stored.specification, stored.trials, stored.observations)
    write_output(file, content, name="the bundle")
    typer.echo(f"{file}: {len(stored.trials)} trials, {len(content)} bytes", err=True)


def best_trials(found: Bundle) -> list[BundledTrial]:
    """Choose the trials of each arm's own best point."""
    specification, trials = found.specification, {trial.number: trial for trial in found.trials}
    names = [arm.name for arm in specification.arms]
    outcomes = [trial.outcome(arm=names.index(trial.arm)) for trial in found.trials]
    standings = leaderboard(outcomes, num_arms=len(names), mode=specification.objective.mode)
    best = [point for standing in standings if (point := own_best(standing)) is not None]
    return [trials[number] for point in best for number in point.standing.trials]
