"""The report in HTML tables: the arms, their best configurations, how wide a choice is, what stopping has cost."""

from __future__ import annotations

import html
from collections.abc import Sequence

from spectune.service.campaign.analysis.leaderboard import PointStanding
from spectune.service.campaign.analysis.report import ArmReport, Report
from spectune.service.campaign.analysis.sensitivity import Basin
from spectune.service.campaign.model.numbers import interval_text, number_text

_NONE = "–"


def report_tables(report: Report) -> str:
    """Write every table that has a row."""
    tables = [
        _table("Arms", ("arm", *ARM_COLUMNS), [[arm.name, *arm_row(arm)] for arm in report.arms]),
        _table("Best of the search", ("arm", "value", "configuration"), [_best_row(arm) for arm in report.arms]),
        _table(
            "Sensitivity: where points are nearly as good as the best",
            ("arm", "hyperparameter", "from", "to", "width", "points", "importance"),
            [row for arm in report.arms for row in _sensitivity_rows(arm)],
        ),
        _table(
            "Stopping: audited trials that would have been their arm's best",
            ("arm", "wrong", "audited", "rate, 95 %", "worst cost"),
            [row for arm in report.arms for row in _regret_rows(arm)],
        ),
    ]
    return "".join(tables)


ARM_COLUMNS = (
    "trials",
    "completed",
    "device seconds",
    "best search value",
    "mean of finals ± 95 % interval",
    "seeds",
    "band",
)


def arm_row(arm: ArmReport) -> list[str]:
    """Return an arm's cells below `ARM_COLUMNS`."""
    finals = arm.finals
    told = _NONE if finals is None or finals.mean is None else interval_text(finals.mean, finals.half_width)
    completed = {state.value: number for state, number in arm.num_trials.items()}.get("COMPLETED", 0)
    return [
        str(sum(arm.num_trials.values())),
        str(completed),
        f"{arm.device_seconds:.4g}",
        _NONE if arm.best is None else interval_text(arm.best.value, arm.best.half_width),
        told,
        _NONE if finals is None else f"{len(finals.values)} of {finals.num_seeds}",
        "95 %" if not arm.curve.reason else f"none: {arm.curve.reason}",
    ]


def _best_row(arm: ArmReport) -> list[str]:
    if arm.best is None:
        return [arm.name, _NONE, "no point completed"]
    return [arm.name, interval_text(arm.best.value, arm.best.half_width), configuration(arm.best)]


def configuration(point: PointStanding) -> str:
    """Write a point's hyperparameters in a line."""
    return ", ".join(f"{name} = {_shown(value)}" for name, value in sorted(point.config.items()))


def _sensitivity_rows(arm: ArmReport) -> list[list[str]]:
    names = [*arm.basins, *(name for name in arm.importances if name not in arm.basins)]
    return [[arm.name, name, *_basin_cells(arm.basins.get(name)), _importance(arm, name)] for name in names]


def _basin_cells(basin: Basin | None) -> list[str]:
    if basin is None:
        return [_NONE] * 4
    width = f"{basin.share:.0%} of the range" if basin.decades is None else f"{basin.decades:.2f} decades"
    return [f"{basin.low:.4g}", f"{basin.high:.4g}", width, str(basin.num_points)]


def _importance(arm: ArmReport, name: str) -> str:
    return f"{arm.importances[name]:.0%}" if name in arm.importances else _NONE


def _regret_rows(arm: ArmReport) -> list[list[str]]:
    if arm.regret is None:
        return []
    low, high = arm.regret.interval
    rate = f"{arm.regret.rate:.0%} ({low:.0%} to {high:.0%})"
    return [[arm.name, str(arm.regret.num_wrong), str(arm.regret.num_audited), rate, f"{arm.regret.largest:.3g}"]]


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{html.escape(title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _shown(value: object) -> str:
    return number_text(value) if isinstance(value, float) else str(value)
