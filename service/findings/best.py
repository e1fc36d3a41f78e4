"""A campaign's best configuration as text: YAML whose comments say how it was found, and hold Python that builds it."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spectune.service.campaign.analysis.best import (
    NONE_COMPLETED,
    TWO_OBJECTIVES,
    BestPoint,
    campaign_ranking,
    own_best,
)
from spectune.service.campaign.analysis.comparability import Comparability, comparability, group_of
from spectune.service.campaign.analysis.leaderboard import ArmStanding
from spectune.service.campaign.analysis.report import Report
from spectune.service.campaign.model.lifecycle import CampaignState
from spectune.service.campaign.model.progress import Tally
from spectune.service.campaign.model.records import CampaignRecord, TrialRecord
from spectune.service.campaign.specification.specification import Specification
from spectune.service.campaign_file import write_yaml
from spectune.service.errors import NothingToShowError


def best_text(
    specification: Specification,
    campaign: CampaignRecord,
    standings: Sequence[ArmStanding],
    tallies: Sequence[Tally],
    *,
    arm_name: str | None = None,
) -> str:
    """Write a best configuration: a YAML document whose comments say how it was found, and hold the Python.

    Args:
        specification: What was asked for.
        campaign: The campaign.
        standings: Of all its arms.
        tallies: Of all its trials.
        arm_name: The arm whose own best is wanted; None for the best of all.

    Raises:
        NothingToShowError: No best point may be named; says why.
    """
    best = _asked(specification, campaign, standings, tallies, arm_name)
    arm, point = specification.arms[best.arm], best.standing
    objective = f"{specification.objective.metric} {best.text} at step {specification.task.steps}"
    lines = [f"# {campaign.campaign_id}, arm {arm.name}, point {point.point}: {objective}, {best.how}"]
    config = {**arm.fixed, **point.config}  # a trial of an older release does not name all that it was trained with
    lines.append(write_yaml({"optimizer": arm.optimizer, **config}).rstrip())
    lines += ["#", "# in Python:", *(f"#   {line}" for line in python_lines(arm.optimizer, config))]
    return "\n".join(lines)


def shares_of(specification: Specification, trials: Iterable[TrialRecord], *, state: CampaignState) -> Comparability:
    """Return which arms of a campaign did not get their share, and what must be said first of it."""
    return comparability([arm.name for arm in specification.arms], map(group_of, trials), state=state)


def best_line(report: Report) -> str:
    """Name the best point of all with its value and how that was obtained, or say why none may be named."""
    if report.best is None:
        return f"No best point: {report.why_no_best}"
    best, arm = report.best, report.arms[report.best.arm]
    return f"Best: {arm.name}, point {best.standing.point}, {report.objective} {best.text} ({best.how})"


def _asked(
    specification: Specification,
    campaign: CampaignRecord,
    standings: Sequence[ArmStanding],
    tallies: Sequence[Tally],
    arm_name: str | None,
) -> BestPoint:
    """Find the best point of one arm, or of all."""
    ranking = campaign_ranking(campaign, standings, tallies)
    if arm_name is None or ranking.why_none == TWO_OBJECTIVES:
        best, why = ranking.best, ranking.why_none
    else:
        names = [arm.name for arm in specification.arms]
        best, why = own_best(standings[names.index(arm_name)]), NONE_COMPLETED
    if best is None:
        raise NothingToShowError(f"{why}: got campaign {campaign.campaign_id!r}")
    return best


def python_lines(optimizer: str, config: Mapping[str, Any]) -> list[str]:
    """Write Python that builds an optimizer: for a whole `model`, and by its own constructor for `matrices` alone.

    Args:
        optimizer: Its name in the catalogue.
        config: Its hyperparameters.
    """
    from spectune.optimizers.catalog import SPECTRAL_CLASSES  # torch

    given = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    whole = f"optimizer = build_optimizer(model, {optimizer!r}{_keywords(given)})"
    if optimizer not in SPECTRAL_CLASSES:
        return ["from spectune.optimizers import build_optimizer", whole]
    kind = SPECTRAL_CLASSES[optimizer]
    own = {name: value for name, value in given.items() if name in kind.hyperparameters}
    return [
        f"from spectune.optimizers import {kind.__name__}, build_optimizer",
        f"{whole}  # the whole model, AdamW beside the matrices",
        f"optimizer = {kind.__name__}(matrices{_keywords(own)})  # a list of matrices alone",
    ]


def _keywords(given: Mapping[str, Any]) -> str:
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in given), f"no keywords: got {list(given)}"
    return "".join(f", {name}={value!r}" for name, value in given.items())
