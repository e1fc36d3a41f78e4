"""The figures of a report, and what they share with those of the pages: an arm's colour, words, and axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas  # noqa: F401  # Plotly asks whether it is there, and must not find what another thread has half imported
import plotly.graph_objects as go

from spectune.service.campaign.analysis.report import Report
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.records import Phase, TrialRecord
from spectune.service.campaign.specification.specification import Specification

_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")  # Tol's, for colour-blind eyes
_WIDE = 100.0  # largest over smallest value


def report_figures(report: Report) -> list[go.Figure]:
    """Draw what a report found, each figure for which there is something to show."""
    makers = (_finals_figure, _curves_figure, _importance_figure, _pareto_figure)
    return [figure for make in makers if (figure := make(report)) is not None]


def _finals_figure(report: Report) -> go.Figure | None:
    """Every seed of the finals, and their mean."""
    figure = go.Figure()
    for arm in report.arms:
        if arm.finals is None or not arm.finals.values:
            continue
        values = list(arm.finals.values.values())
        figure.add_trace(
            go.Box(y=values, name=arm.name, boxpoints="all", boxmean=True, marker_color=colour_of(arm.arm), pointpos=0)
        )
    return titled(figure, "Finals: every seed", "", report.objective) if figure.data else None


def _curves_figure(report: Report) -> go.Figure | None:
    """Tuning curves, with bands where they are valid."""
    figure = go.Figure()
    for arm in report.arms:
        counts = list(range(1, len(arm.curve.median) + 1))
        if not counts:
            continue
        colour = colour_of(arm.arm)
        if arm.curve.low is not None and arm.curve.high is not None:
            for ends, fill in ((arm.curve.low, None), (arm.curve.high, "tonexty")):
                line = {"width": 0, "color": colour}
                figure.add_trace(
                    go.Scatter(x=counts, y=ends, line=line, fill=fill, showlegend=False, hoverinfo="skip", opacity=0.3)
                )
        name = arm.name + (" (median, 95 % band)" if not arm.curve.reason else " (best so far)")
        figure.add_trace(go.Scatter(x=counts, y=arm.curve.median, name=name, line={"color": colour, "shape": "hv"}))
    return titled(figure, "What so many points would reach", "points", report.objective) if figure.data else None


def learning_rate_figure(specification: Specification, trials: Sequence[TrialRecord]) -> go.Figure | None:
    """Final value against learning rate for every completed trial of the search; None where no arm varies it."""
    figure = go.Figure()
    for index, arm in enumerate(specification.arms):
        if "lr" not in arm.space:
            continue
        mine = [
            trial
            for trial in trials
            if trial.arm == index and trial.phase is Phase.SEARCH and trial.state is TrialState.COMPLETED
        ]
        x, y = [trial.config["lr"] for trial in mine], [trial.objective for trial in mine]
        figure.add_trace(go.Scatter(x=x, y=y, mode="markers", name=arm.name, marker_color=colour_of(index)))
    if not figure.data:
        return None
    values = [value for trace in figure.data for value in trace.x]
    is_wide = bool(values) and max(values) / min(values) > _WIDE
    figure.update_xaxes(type="log", exponentformat="power", dtick=1 if is_wide else None)
    return titled(figure, "Sensitivity to the learning rate", "lr", specification.objective.metric)


def _importance_figure(report: Report) -> go.Figure | None:
    figure = go.Figure()
    for arm in report.arms:
        if arm.importances:
            names, shares = list(arm.importances), list(arm.importances.values())
            figure.add_trace(go.Bar(x=names, y=shares, name=arm.name, marker_color=colour_of(arm.arm)))
    return titled(figure, "Importance (PED-ANOVA)", "", "share") if figure.data else None


def _pareto_figure(report: Report) -> go.Figure | None:
    if not report.pareto:
        return None
    first, second = list(report.pareto[0].costs)[:2]
    figure = go.Figure()
    for arm in report.arms:
        mine = [each for each in report.pareto if each.arm == arm.arm]
        x, y = [each.costs[second] for each in mine], [each.costs[first] for each in mine]
        text = [f"point {each.point}" for each in mine]
        trace = go.Scatter(x=x, y=y, text=text, mode="markers", name=arm.name, marker_color=colour_of(arm.arm))
        figure.add_trace(trace)
    return titled(figure, "Points that nothing dominates", second, first)


def titled(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    """Put in the words; values that lie decades apart get a logarithmic axis."""
    shown = [value for trace in figure.data for value in trace.y if value is not None and math.isfinite(value)]
    if shown and min(shown) > 0 and max(shown) / min(shown) > _WIDE:
        figure.update_yaxes(type="log", exponentformat="e")
    figure.update_layout(title=title, xaxis_title=x, yaxis_title=y, template="plotly_white")
    return figure


def colour_of(arm: int) -> str:
    """Return the colour of an arm, the same in every figure."""
    return _COLOURS[arm % len(_COLOURS)]
