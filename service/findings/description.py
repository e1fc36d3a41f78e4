"""A campaign in a few lines of Markdown, as MLflow shows them above a run: arms, the best, what the finals say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from spectune.service.campaign.analysis.report import ArmReport, Report
from spectune.service.campaign.specification.specification import Specification
from spectune.service.findings.comparison_lines import verdict_lines
from spectune.service.findings.tables import ARM_COLUMNS, arm_row, configuration

_MOST_ARMS: Final = 20
_MOST_VERDICTS: Final = 5


def description(report: Report, specification: Specification) -> str:
    """Describe a campaign, at rest or not; MLflow folds all but the first lines, so that the best comes first.

    Args:
        report: What it says about its optimizers.
        specification: What was asked for.
    """
    aims = " and ".join(f"{each.mode} `{each.metric}`" for each in specification.objectives)
    parts = [f"Spectune: {aims} at step {report.steps}. {report.state}: {report.progress}."]
    parts += [f"**{report.notes[0]}**"] if report.lacking else []
    if len(specification.objectives) > 1:
        parts.append(f"{len(report.pareto)} points are dominated by no other.")
    elif report.best is not None:
        best, arm = report.best, report.arms[report.best.arm]
        parts.append(f"Best: **{arm.name}**, point {best.standing.point}: {configuration(best.standing)}")
        parts.append(f"{report.objective} {best.text} ({best.how}).")
    else:
        parts.append(f"No best point: {report.why_no_best}.")
    parts.append(_table([report.arms[index] for index in report.order]))
    lines = verdict_lines(report.verdicts, names=[arm.name for arm in report.arms])
    parts.append("\n".join(f"- {line}" for line in lines[:_MOST_VERDICTS]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(arms: Sequence[ArmReport]) -> str:
    columns = ("arm", *ARM_COLUMNS[:-1])  # the last is about a figure of the report
    rows = [columns, ["---"] * len(columns), *([arm.name, *arm_row(arm)[:-1]] for arm in arms)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    more = len(arms) - _MOST_ARMS
    return "\n".join(lines[: _MOST_ARMS + 2]) + (f"\n\n{more} more arms are in `report.html`." if more > 0 else "")
