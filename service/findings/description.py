"""A campaign in a few lines of Markdown, as MLflow shows them above a run: arms, the best, what the finals say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from service.campaign.leaderboard import ArmStanding
from service.campaign.lifecycle import TrialState
from service.campaign.report import ArmReport, Report
from service.campaign.specification import Specification
from service.findings.best import best_first
from service.findings.tables import ARM_COLUMNS, arm_row, configuration
from service.findings.verdict_lines import verdict_lines

_MOST_ARMS: Final = 20
_MOST_VERDICTS: Final = 5


def description(report: Report, specification: Specification, standings: Sequence[ArmStanding]) -> str:
    """Describe a campaign, at rest or not; MLflow folds all but the first lines, so that the best comes first.

    Args:
        report: What it says about its optimizers.
        specification: What was asked for.
        standings: Of its arms.
    """
    aims = " and ".join(f"{each.mode} `{each.metric}`" for each in specification.objectives)
    counts = [f"{sum(arm.num_trials[state] for arm in report.arms)} {state.lower()}" for state in _states(report)]
    parts = [f"Spectune: {aims} at step {report.steps}. {report.state}: {', '.join(counts) or 'no trial'}."]
    parts += [f"**{report.notes[0]}**"] if report.lacking else []
    ordered = [report.arms[each.arm] for each in best_first(specification, standings)]
    if len(specification.objectives) > 1:
        parts.append(f"{len(report.pareto)} points are dominated by no other.")
    elif ordered[0].best is not None and not report.lacking:
        parts.append(f"Best: **{ordered[0].name}**, point {ordered[0].best.point}: {configuration(ordered[0].best)}")
    parts.append(_table(ordered))
    lines = verdict_lines(report.verdicts, names=[arm.name for arm in report.arms])
    parts.append("\n".join(f"- {line}" for line in lines[:_MOST_VERDICTS]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _states(report: Report) -> list[TrialState]:
    return [state for state in report.arms[0].num_trials if any(arm.num_trials[state] for arm in report.arms)]


def _table(arms: Sequence[ArmReport]) -> str:
    columns = ("arm", *ARM_COLUMNS[:-1])  # the last is about a figure of the report
    rows = [columns, ["---"] * len(columns), *([arm.name, *arm_row(arm)[:-1]] for arm in arms)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    more = len(arms) - _MOST_ARMS
    return "\n".join(lines[: _MOST_ARMS + 2]) + (f"\n\n{more} more arms are in `report.html`." if more > 0 else "")
