"""Figures of a campaign that may still be running, and of one trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.records import Observation, Phase, TrialRecord
from spectune.service.campaign.specification.specification import Specification
from spectune.service.findings.figures import colour_of, learning_rate_figure, titled

_COLUMNS = 3
_ROW_PIXELS = 220


def campaign_figures(
    specification: Specification, trials: Sequence[TrialRecord], curves: Mapping[int, Sequence[Observation]]
) -> list[go.Figure]:
    """Draw how a campaign goes.

    Args:
        specification: What was asked for.
        trials: All its trials.
        curves: What some of them reported, by number and in the order of steps.
    """
    figures = [
        _progress_figure(specification, trials),
        _curves_figure(specification, trials, curves),
        learning_rate_figure(specification, [each for each in trials if _is_drawable(each)]),
    ]
    figures += [_coordinates_figure(specification, arm, trials) for arm in range(len(specification.arms))]
    return [figure for figure in figures if figure is not None]


def trial_figure(observations: Sequence[Observation]) -> go.Figure | None:
    """Draw every metric of a trial by step, each with an axis of its own; None before it has reported any."""
    names = sorted({name for each in observations for name in each.metrics}, key=lambda name: ("/" in name, name))
    if not names:
        return None
    num_rows = math.ceil(len(names) / _COLUMNS)
    figure = make_subplots(rows=num_rows, cols=_COLUMNS, subplot_titles=names, vertical_spacing=0.3 / num_rows)
    for index, name in enumerate(names):
        points = [
            (each.step, each.metrics[name]) for each in observations if math.isfinite(each.metrics.get(name, math.nan))
        ]
        row, column = divmod(index, _COLUMNS)
        x, y = [step for step, _ in points], [value for _, value in points]
        trace = go.Scatter(x=x, y=y, mode="lines+markers", name=name, line={"color": colour_of(0)}, marker={"size": 4})
        figure.add_trace(trace, row=row + 1, col=column + 1)
    figure.update_layout(template="plotly_white", showlegend=False, height=80 + _ROW_PIXELS * num_rows)
    figure.update_annotations(font_size=12)
    return figure


def _progress_figure(specification: Specification, trials: Sequence[TrialRecord]) -> go.Figure | None:
    """The objective of each completed trial of the search when it ended, and the best of its arm so far."""
    figure = go.Figure()
    pick = min if specification.objective.mode == "minimize" else max
    for index, arm in enumerate(specification.arms):
        mine = [each for each in trials if each.arm == index and _is_drawable(each)]
        mine.sort(key=lambda trial: (trial.since, trial.number))
        if not mine:
            continue
        x, y = [each.since for each in mine], [_value(each) for each in mine]
        text = [f"trial {each.number}" for each in mine]
        name, colour = str(arm.name), colour_of(index)
        shared: dict[str, Any] = {"x": x, "legendgroup": name}
        figure.add_trace(
            go.Scatter(
                **shared, y=y, text=text, mode="markers", showlegend=False, marker={"color": colour, "opacity": 0.5}
            )
        )
        best = list(accumulate(y, pick))
        figure.add_trace(go.Scatter(**shared, y=best, name=name, mode="lines", line={"color": colour, "shape": "hv"}))
    figure.update_xaxes(type="date")
    return (
        titled(figure, "Objective over time, and the best so far", "", specification.objective.metric)
        if figure.data
        else None
    )


def _curves_figure(
    specification: Specification, trials: Sequence[TrialRecord], curves: Mapping[int, Sequence[Observation]]
) -> go.Figure | None:
    """What the best trials of each arm reported by step."""
    figure = go.Figure()
    metric, told = specification.objective.metric, set[int]()
    for trial in (each for each in trials if each.number in curves):
        points = [(each.step, each.metrics.get(metric, math.nan)) for each in curves[trial.number]]
        points = [(step, value) for step, value in points if math.isfinite(value)]
        figure.add_trace(
            go.Scatter(
                x=[step for step, _ in points],
                y=[value for _, value in points],
                name=str(specification.arms[trial.arm].name),
                legendgroup=str(trial.arm),
                showlegend=trial.arm not in told,
                text=f"trial {trial.number}",
                mode="lines",
                line={"color": colour_of(trial.arm), "width": 1.2},
            )
        )
        told.add(trial.arm)
    return titled(figure, "Curves of the best trials of each arm", "step", metric) if figure.data else None


def _coordinates_figure(specification: Specification, arm: int, trials: Sequence[TrialRecord]) -> go.Figure | None:
    """One line through the hyperparameters and the objective of each completed trial of an arm's search."""
    mine = [each for each in trials if each.arm == arm and _is_drawable(each)]
    names = [
        name
        for name in specification.arms[arm].space
        if all(type(each.config.get(name)) in (int, float) for each in mine)
        and len({each.config[name] for each in mine}) > 1
    ]
    if len(mine) < 2 or len(names) < 2:
        return None
    axes = [_axis(name, [each.config[name] for each in mine]) for name in names]
    values = [_value(each) for each in mine]
    low, high = _range(values)
    is_best_low = specification.objective.mode == "minimize"
    line = {"color": values, "colorscale": "Viridis", "reversescale": is_best_low, "cmin": low, "cmax": high}
    axes.append({"label": specification.objective.metric, "values": values, "range": [low, high]})
    figure = go.Figure(go.Parcoords(line=line, dimensions=axes))
    figure.update_layout(
        template="plotly_white", title=f"{specification.arms[arm].name}: hyperparameters and objective"
    )
    return figure


def _axis(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Make the axis of a hyperparameter; one that spans decades is drawn by its logarithm."""
    low, high = min(values), max(values)
    if low <= 0 or high / low < 30:
        return {"label": name, "values": list(values)}
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [tick for power in powers for tick in (1.0 * 10.0**power, 3.0 * 10.0**power) if low <= tick <= high]
    return {
        "label": name,
        "values": [math.log10(value) for value in values],
        "tickvals": [math.log10(tick) for tick in ticks],
        "ticktext": [f"{tick:.0e}" for tick in ticks],
        "range": [math.log10(low), math.log10(high)],
    }


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Leave the worst tenth beyond the scale, which one bad trial would stretch until the good ones look alike."""
    ordered = sorted(values)
    cut = len(ordered) // 10
    return ordered[cut], ordered[len(ordered) - 1 - cut]


def _is_drawable(trial: TrialRecord) -> bool:
    is_done = trial.state is TrialState.COMPLETED and trial.phase is Phase.SEARCH
    return is_done and trial.objective is not None and math.isfinite(trial.objective)


def _value(trial: TrialRecord) -> float:
    assert trial.objective is not None, "asked for those with a finite one: got None"
    return trial.objective
