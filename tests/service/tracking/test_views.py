"""A campaign's view in MLflow names what varies, and keeps its colours and its place."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from mlflow.utils.validation import MAX_EXPERIMENT_TAG_VAL_LENGTH

from spectune.service.campaign.model.lifecycle import CampaignState
from spectune.service.campaign.model.records import CampaignRecord
from spectune.service.tracking.views import MOST_VIEWS, VIEW_TAG, colour, outdated, view, view_key

LOG = {"log_uniform": [0.001, 1.0]}
MINIMIZED = {"metric": "validation_loss", "mode": "minimize"}


def campaign(*arms: dict[str, Any], objective: Any = MINIMIZED, created_at: int = 5) -> CampaignRecord:
    specification = {"arms": [{"optimizer": "muon", "space": space} for space in arms], "objective": objective}
    return CampaignRecord("c-1", "c", CampaignState.RUNNING, "", "", 1, created_at, specification, 1, 1)


def read(text: str) -> dict[str, Any]:
    prefix, _, content = text.partition(";")
    assert prefix == "deflate"
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(content)))
    return state


def charts(state: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [chart for chart in state["compareRunCharts"] if chart["type"] == kind]


def test_it_is_of_the_campaigns_trials_with_what_varies_in_columns_and_charts() -> None:
    one = {"lr": LOG, "momentum": {"uniform": [0.8, 0.99]}, "scale": {"fixed": "none"}}
    other = {"lr": LOG, "betas": {"choice": [[0.9, 0.95], [0.9, 0.99]]}}
    state = read(view(campaign(one, other), "run7"))
    assert state["searchFilter"] == "tags.`mlflow.parentRunId` = 'run7'"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`loss/validation`", True)
    assert [name for name in state["selectedColumns"] if name.startswith("params")] == [
        "params.`optimizer`", "params.`lr`", "params.`momentum`", "params.`betas`"
    ]  # fmt: skip
    (line,), (scatter,) = charts(state, "LINE"), charts(state, "SCATTER")
    assert (line["metricKey"], line["scaleType"]) == ("loss/validation", "log")
    assert (scatter["xaxis"]["key"], scatter["yaxis"]["key"]) == ("log10_lr", "best")
    shown = [chart["selectedParams"] for chart in charts(state, "PARALLEL")]
    assert shown == [["optimizer"], ["optimizer", "momentum"], ["optimizer", "betas"]]


def test_what_only_some_trials_have_is_a_column_but_no_axis_for_mlflow_leaves_out_trials_without_it() -> None:
    space = {"lr": LOG, "solver": {"choice": ["a", "b"]}, "degree": {"integer": [1, 3], "when": {"solver": ["a"]}}}
    state = read(view(campaign(space), "run7"))
    assert "params.`degree`" in state["selectedColumns"]
    assert "degree" not in charts(state, "PARALLEL")[0]["selectedParams"]


def test_two_objectives_are_drawn_against_each_other_and_nothing_varied_draws_nothing_empty() -> None:
    objectives = [{"metric": "accuracy", "mode": "maximize"}, {"metric": "throughput", "mode": "maximize"}]
    state = read(view(campaign({}, objective=objectives), "run7"))
    (scatter,) = charts(state, "SCATTER")
    assert (scatter["xaxis"]["key"], scatter["yaxis"]["key"]) == ("accuracy", "time/throughput")
    assert charts(state, "PARALLEL") == []
    assert state["orderByAsc"] is False


def test_each_arm_has_a_hue_and_neighbours_a_shade() -> None:
    assert len({colour(arm, point) for arm in range(8) for point in range(4)}) == 32
    assert colour(0, 0) == colour(8, 4)
    assert all(len(colour(arm, 0)) == 7 and colour(arm, 0)[0] == "#" for arm in range(8))


def test_the_oldest_views_are_picked_and_never_those_that_people_shared() -> None:
    keys = [VIEW_TAG + view_key(campaign({}, created_at=10**12 + number)) for number in range(MOST_VIEWS + 2)]
    assert outdated([VIEW_TAG + "a1b2", "mlflow.note.content", *reversed(keys)]) == keys[:2]


def test_a_view_of_many_hyperparameters_is_short_enough_for_mlflow() -> None:
    arms = [{"lr": LOG} | {f"a_rather_long_name_{arm}_{number}": LOG for number in range(20)} for arm in range(8)]
    assert len(view(campaign(*arms), "f" * 32)) < MAX_EXPERIMENT_TAG_VAL_LENGTH
