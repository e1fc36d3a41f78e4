"""`spectune best`: a campaign's best configuration, as YAML and as Python that builds the optimizer."""

from __future__ import annotations

from typing import Annotated

import typer

from spectune.service.campaign.analysis.leaderboard import leaderboard
from spectune.service.campaign.model.progress import tally
from spectune.service.cli.run import DEFAULT_DATA_DIR, DataDirOption
from spectune.service.cli.stored import CampaignArgument, read_stored
from spectune.service.errors import NothingToShowError
from spectune.service.findings.best import best_text

ArmOption = Annotated[str | None, typer.Option("--arm", help="The arm whose best is wanted; by default the best arm.")]


def best(campaign: CampaignArgument, data_dir: DataDirOption = DEFAULT_DATA_DIR, arm: ArmOption = None) -> None:
    """Print a campaign's best configuration, as YAML and as Python."""
    stored = read_stored(data_dir, campaign)
    specification = stored.specification
    names = [each.name for each in specification.arms]
    if arm is not None and arm not in names:
        raise NothingToShowError(f"no such arm; the campaign has {', '.join(names)}: got {arm!r}")
    standings = leaderboard(stored.trials, num_arms=len(names), mode=specification.objective.mode)
    typer.echo(best_text(specification, stored.record, standings, tally(stored.trials), arm_name=arm))
