"""`spectune best`: a campaign's best configuration, as YAML and as Python that builds the optimizer."""

from __future__ import annotations

from typing import Annotated

import typer

from service.campaign.leaderboard import leaderboard
from service.cli.run import DEFAULT_DATA_DIR, DataDirOption
from service.cli.stored import CampaignArgument, read_stored
from service.errors import NothingToShowError
from service.findings.best import best_text, shares_of

ArmOption = Annotated[str | None, typer.Option("--arm", help="The arm whose best is wanted; by default the best arm.")]


def best(campaign: CampaignArgument, data_dir: DataDirOption = DEFAULT_DATA_DIR, arm: ArmOption = None) -> None:
    """Print a campaign's best configuration, as YAML and as Python."""
    stored = read_stored(data_dir, campaign)
    specification = stored.specification
    names = [each.name for each in specification.arms]
    if arm is not None and arm not in names:
        raise NothingToShowError(f"no such arm; the campaign has {', '.join(names)}: got {arm!r}")
    if len(specification.objectives) > 1:
        raise NothingToShowError(f"with two objectives no point is the best; `report` has the front: got {campaign!r}")
    lacking = shares_of(specification, stored.trials, state=stored.record.state)
    if arm is None and not lacking.is_comparable:
        raise NothingToShowError(f"{lacking.sentence}, so none is the best; ask for one with --arm: got {campaign!r}")
    standings = leaderboard(stored.trials, num_arms=len(names), mode=specification.objective.mode)
    asked = [each for each in standings if arm in (None, names[each.arm])]
    typer.echo(best_text(specification, asked, campaign_id=campaign))
