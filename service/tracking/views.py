"""How MLflow shows a campaign's trials when its link is opened: columns, charts, and a colour for each arm.

MLflow's own choice is a table without a metric or a parameter, a chart for each metric by the alphabet, and colours by
chance. A view of another choice lies in a tag of the experiment, as its button "Share view" puts it there; MLflow
documents neither the tag nor what is in it, and tests/integration/test_mlflow_pages.py opens one in a browser.

    comparison   the objective by step, the best objective by the learning rate, parallel coordinates
    loss, ...    a chart for each metric, which MLflow adds by itself
    parameters   parallel coordinates of what each arm varies
"""

from __future__ import annotations

import base64
import colorsys
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from spectune.service.campaign.model.records import CampaignRecord
from spectune.service.tracking.naming import LOG_LR, metric_name

VIEW_TAG: Final = "mlflow.sharedViewState."
COLOUR_TAG: Final = "mlflow.runColor"
MOST_VIEWS: Final = 100
"""Of an experiment, whose tags MLflow reads for each of its pages. The oldest go; MLflow's own choice is shown then."""
_OURS: Final = "spectune-"
_PLAIN: Final = ("adamw", "sgd")  # optimizers that report nothing spectral; a section without charts is not shown
_SECTION: Final = "comparison"
_ARMS: Final = "parameters"
_MOST_COLUMNS: Final = 12  # of parameters
_MOST_PARALLELS: Final = 6
_HUES: Final = (0.58, 0.07, 0.36, 0.83, 0.0, 0.48, 0.13, 0.72)
_LIGHTNESSES: Final = (0.45, 0.6, 0.35, 0.7)


def colour(arm: int, point: int) -> str:
    """Return the colour of a run: the hue is its arm's, the lightness tells neighbours apart."""
    lightness = _LIGHTNESSES[point % len(_LIGHTNESSES)]
    rgb = colorsys.hls_to_rgb(_HUES[arm % len(_HUES)], lightness, 0.65)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def view_key(campaign: CampaignRecord) -> str:
    """Name a campaign's view; names sort by age."""
    return f"{_OURS}{campaign.created_at:013d}-{campaign.campaign_id}"


def outdated(tags: Iterable[str]) -> list[str]:
    """Pick the tags of an experiment whose views are too many, the oldest; those that people shared stay."""
    ours = sorted(tag for tag in tags if tag.startswith(VIEW_TAG + _OURS))
    return ours[: max(0, len(ours) - MOST_VIEWS)]


def view(campaign: CampaignRecord, parent_run_id: str) -> str:
    """Write the view of a campaign's trials, the best first.

    Args:
        campaign: At any point of its life.
        parent_run_id: Its own run.
    """
    names, mode = _varied(campaign.specification["arms"]), campaign.objective["mode"]
    metric = metric_name(campaign.objective["metric"])
    is_spectral = any(arm["optimizer"] not in _PLAIN for arm in campaign.specification["arms"])
    spectral = ["spectral"] if is_spectral else []
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_run_id}'",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": mode == "minimize",
        "selectedColumns": _columns(names),
        "runsHiddenMode": "FIRST_20_RUNS",
        "isAccordionReordered": True,  # else the alphabet's
        "compareRunSections": [_section(name) for name in (_SECTION, "loss", *spectral, _ARMS)],
        "compareRunCharts": _charts(campaign, metric, names),
    }
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()


def _varied(arms: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Name the hyperparameters that vary, each with the number of arms in which it always does."""
    counts: dict[str, int] = {}
    for arm in arms:
        for name, domain in arm["space"].items():
            if "fixed" not in domain:
                counts[name] = counts.get(name, 0) + ("when" not in domain)
    return dict(sorted(counts.items(), key=lambda each: -each[1]))


def _columns(names: Iterable[str]) -> list[str]:
    metrics = [f"metrics.`{name}`" for name in ("best", "final", "steps", "device_seconds")]
    params = [f"params.`{name}`" for name in ("optimizer", *list(names)[:_MOST_COLUMNS])]
    return ["attributes.`Duration`", *metrics, *params, "tags.`state`"]


def _charts(campaign: CampaignRecord, metric: str, names: Mapping[str, int]) -> list[dict[str, Any]]:
    arms = campaign.specification["arms"]
    common = [name for name, count in names.items() if count == len(arms)]
    scale = "log" if metric.startswith("loss/") else "linear"
    by_step = {"metricKey": metric, "selectedMetricKeys": [metric], "scaleType": scale, "xAxisKey": "step"}
    charts = [_chart("LINE", f"{metric} by step", **by_step, yAxisKey="metric", yAxisExpressions=[], range={})]
    first = [name for name in common if name != "lr"][:1]
    axis = (LOG_LR, "METRIC") if "lr" in names else (first[0], "PARAM") if first else None
    if axis is not None:
        charts.append(_scatter(axis, ("best", "METRIC")))
    objectives = campaign.specification["objective"]
    if isinstance(objectives, list):
        one, other = (metric_name(each["metric"]) for each in objectives)
        charts.append(_scatter((one, "METRIC"), (other, "METRIC")))
    return [*charts, *_parallels(arms, common, metrics=[LOG_LR, "best"] if "lr" in names else ["best"])]


def _parallels(
    arms: Sequence[Mapping[str, Any]], common: Sequence[str], *, metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Draw parallel coordinates of what all arms vary, and of what each varies; MLflow leaves out runs without it."""
    which = ["optimizer"] if len(arms) > 1 else []
    axes = {
        tuple(name for name in names if name != "lr"): None for names in (common, *(_varied([arm]) for arm in arms))
    }
    shown = [[*which, *names] for names in axes if len([*which, *names, *metrics]) > 1]
    return [
        _chart("PARALLEL", f"parallel coordinates {place}", selectedParams=params, selectedMetrics=metrics)
        | {"showAllRuns": True, "metricSectionId": _ARMS if place else _SECTION}
        for place, params in enumerate(shown[:_MOST_PARALLELS])
    ]


def _scatter(x: tuple[str, str], y: tuple[str, str]) -> dict[str, Any]:
    axes = {"xaxis": {"key": x[0], "type": x[1]}, "yaxis": {"key": y[0], "type": y[1]}}
    return _chart("SCATTER", f"{y[0]} by {x[0]}", **axes, runsCountToCompare=100)


def _chart(kind: str, name: str, **options: Any) -> dict[str, Any]:
    known = {"type": kind, "uuid": f"{_SECTION}-{name}", "metricSectionId": _SECTION, "displayName": name}
    return known | {"runsCountToCompare": 20, "deleted": False, "isGenerated": False, **options}


def _section(name: str) -> dict[str, Any]:
    return {"uuid": name, "name": name, "display": True, "isReordered": False, "deleted": False, "isGenerated": False}
