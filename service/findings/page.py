"""The report as one HTML file: Plotly figures with the script inside, so that it needs no net and can be mailed."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from service.campaign.lifecycle import TrialState
from service.campaign.records import Phase, TrialRecord
from service.campaign.report import Report
from service.campaign.specification import Specification
from service.findings.tables import report_tables
from service.findings.verdict_lines import verdict_lines

_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")  # Tol's, for colour-blind eyes
_WIDE = 100.0  # largest over smallest value
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h1{font-size:1.6rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}"
    "table{border-collapse:collapse;width:100%;font-size:.85rem;font-variant-numeric:tabular-nums}"
    "th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}th{color:#555}"
)


def report_page(report: Report, specification: Specification, trials: Sequence[TrialRecord]) -> str:
    """Write the page.

    Args:
        report: The campaign's.
        specification: What was asked for.
        trials: All its trials.
    """
    figures = [
        _finals_figure(report),
        _curves_figure(report),
        _learning_rate_figure(report, specification, trials),
        _importance_figure(report),
        _pareto_figure(report),
    ]
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"figure-{number}")  # else a random one
        for number, figure in enumerate(figures)
        if figure is not None
    ]
    title = html.escape(f"{report.campaign_id}: {report.objective} at step {report.steps}")
    seeds = specification.search.seeds
    asked = html.escape(
        f"{specification.name}: {specification.task.name}, to {report.mode}; {specification.search.sampler} over "
        f"{specification.search.points} points of each arm with {seeds} seed{'s' if seeds > 1 else ''}, stopping "
        f"{specification.stopping.rule}; the campaign is {report.state}"
    )
    names = [arm.name for arm in report.arms]
    said = "".join(
        f"<li>{html.escape(line)}</li>" for line in [*verdict_lines(report.verdicts, names=names), *report.notes]
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<script>{get_plotlyjs()}</script></head><body><h1>{title}</h1><p>{asked}</p><ul>{said}</ul>"
        f"{report_tables(report)}{''.join(parts)}</body></html>"
    )


def _finals_figure(report: Report) -> go.Figure | None:
    """Every seed of the finals, and their mean."""
    figure = go.Figure()
    for arm in report.arms:
        if arm.finals is None or not arm.finals.values:
            continue
        values = list(arm.finals.values.values())
        figure.add_trace(
            go.Box(y=values, name=arm.name, boxpoints="all", boxmean=True, marker_color=_colour(arm.arm), pointpos=0)
        )
    return _titled(figure, "Finals: every seed", "", report.objective) if figure.data else None


def _curves_figure(report: Report) -> go.Figure | None:
    """Tuning curves, with bands where they are valid."""
    figure = go.Figure()
    for arm in report.arms:
        counts = list(range(1, len(arm.curve.median) + 1))
        if not counts:
            continue
        colour = _colour(arm.arm)
        if arm.curve.low is not None and arm.curve.high is not None:
            for ends, fill in ((arm.curve.low, None), (arm.curve.high, "tonexty")):
                line = {"width": 0, "color": colour}
                figure.add_trace(
                    go.Scatter(x=counts, y=ends, line=line, fill=fill, showlegend=False, hoverinfo="skip", opacity=0.3)
                )
        name = arm.name + (" (median, 95 % band)" if not arm.curve.reason else " (best so far)")
        figure.add_trace(go.Scatter(x=counts, y=arm.curve.median, name=name, line={"color": colour, "shape": "hv"}))
    return _titled(figure, "What so many points would reach", "points", report.objective) if figure.data else None


def _learning_rate_figure(
    report: Report, specification: Specification, trials: Sequence[TrialRecord]
) -> go.Figure | None:
    """Final value against learning rate for every completed trial of the search."""
    figure = go.Figure()
    for arm in report.arms:
        if "lr" not in specification.arms[arm.arm].space:
            continue
        mine = [
            trial
            for trial in trials
            if trial.arm == arm.arm and trial.phase is Phase.SEARCH and trial.state is TrialState.COMPLETED
        ]
        x, y = [trial.config["lr"] for trial in mine], [trial.objective for trial in mine]
        figure.add_trace(go.Scatter(x=x, y=y, mode="markers", name=arm.name, marker_color=_colour(arm.arm)))
    if not figure.data:
        return None
    values = [value for trace in figure.data for value in trace.x]
    is_wide = bool(values) and max(values) / min(values) > _WIDE
    figure.update_xaxes(type="log", exponentformat="power", dtick=1 if is_wide else None)
    return _titled(figure, "Sensitivity to the learning rate", "lr", report.objective)


def _importance_figure(report: Report) -> go.Figure | None:
    figure = go.Figure()
    for arm in report.arms:
        if arm.importances:
            names, shares = list(arm.importances), list(arm.importances.values())
            figure.add_trace(go.Bar(x=names, y=shares, name=arm.name, marker_color=_colour(arm.arm)))
    return _titled(figure, "Importance (PED-ANOVA)", "", "share") if figure.data else None


def _pareto_figure(report: Report) -> go.Figure | None:
    if not report.pareto:
        return None
    first, second = list(report.pareto[0].costs)[:2]
    figure = go.Figure()
    for arm in report.arms:
        mine = [each for each in report.pareto if each.arm == arm.arm]
        x, y = [each.costs[second] for each in mine], [each.costs[first] for each in mine]
        text = [f"point {each.point}" for each in mine]
        trace = go.Scatter(x=x, y=y, text=text, mode="markers", name=arm.name, marker_color=_colour(arm.arm))
        figure.add_trace(trace)
    return _titled(figure, "Points that nothing dominates", second, first)


def _titled(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    """Put in the words; values that lie decades apart get a logarithmic axis."""
    shown = [value for trace in figure.data for value in trace.y if value is not None and math.isfinite(value)]
    if shown and min(shown) > 0 and max(shown) / min(shown) > _WIDE:
        figure.update_yaxes(type="log", exponentformat="e")
    figure.update_layout(title=title, xaxis_title=x, yaxis_title=y, template="plotly_white")
    return figure


def _colour(arm: int) -> str:
    return _COLOURS[arm % len(_COLOURS)]
