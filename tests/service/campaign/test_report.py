"""The report's own part: two objectives, notes, and what a campaign that has not ended says."""

from __future__ import annotations

import json
from typing import Any

from spectune.service.campaign.analysis.report import Report, bound_warnings, make_report
from spectune.service.campaign.model.lifecycle import CampaignState, TrialState
from spectune.service.campaign.model.records import CampaignRecord, Observation, TrialRecord
from spectune.service.campaign.specification.catalog import Catalog
from spectune.service.campaign.specification.specification import Specification, parse


def _campaign(specification: Specification, state: CampaignState = CampaignState.SUCCEEDED) -> CampaignRecord:
    return CampaignRecord("c", "c", state, "", "", 0, 0, specification.document(), 1, 1)


def _trial(number: int, objective: float, config: dict[str, Any], **changes: Any) -> TrialRecord:
    values: dict[str, Any] = {"state": TrialState.COMPLETED, "seed_index": 0, "point": number, "ask": {}, **changes}
    values["ask"] = {"origin": "sampler", "coordinates": config, **values["ask"]}
    return TrialRecord(
        number=number,
        arm=0,
        config=config,
        reason="",
        message="",
        since=0,
        created_at=0,
        attempt=1,
        num_losses=0,
        last_step=400,
        objective=objective,
        device_seconds=float(number),
        **values,
    )


def _specification(document: dict[str, Any], catalog: Catalog, **changes: Any) -> Specification:
    document["arms"] = [{"optimizer": "muon", "space": {"lr": {"log_uniform": [0.001, 0.1]}}}]
    document["search"] = {"points": 8}
    document["stopping"], document["initial_points"] = {"rule": "none"}, []
    return parse(document | changes, catalog=catalog)


def _report(specification: Specification, catalog: Catalog, trials: list[TrialRecord], **changes: Any) -> Report:
    state = changes.pop("state", CampaignState.SUCCEEDED)
    values: dict[str, Any] = {"campaign": _campaign(specification, state), "observations": [], **changes}
    return make_report(specification, values["campaign"], trials, values["observations"], catalog=catalog)


def test_two_objectives_have_a_front_in_both_and_each_keeps_its_sign(
    document: dict[str, Any], catalog: Catalog
) -> None:
    objective = [{"metric": "validation_loss"}, {"metric": "loss", "mode": "maximize"}]
    specification = _specification(document, catalog, objective=objective)
    seconds = [5.0, 7.0, 6.0, 9.0]
    trials = [_trial(number, float(number), {"lr": 0.01}) for number in range(4)]
    observations = [
        Observation(number, number, 400, 1, 0, {"validation_loss": float(number), "loss": second})
        for number, second in enumerate(seconds)
    ]
    report = _report(specification, catalog, trials, observations=observations)
    assert [(each.point, dict(each.costs)) for each in report.pareto] == [
        (number, {"validation_loss": float(number), "loss": seconds[number]}) for number in (0, 1, 3)
    ]


def test_one_objective_has_a_front_with_device_time(document: dict[str, Any], catalog: Catalog) -> None:
    trials = [_trial(1, 3.0, {"lr": 0.01}), _trial(2, 2.0, {"lr": 0.02}), _trial(3, 2.5, {"lr": 0.03})]
    specification = _specification(document, catalog)
    assert [each.point for each in _report(specification, catalog, trials).pareto] == [2, 1]

    def timed(valid: float) -> list[Observation]:
        times = {1: 0.3, 2: 0.2, 3: 0.1}
        return [
            Observation(n, n, 400, 1, 0, {"step_time_seconds": seconds, "timing_valid": valid})
            for n, seconds in times.items()
        ]

    assert [each.point for each in _report(specification, catalog, trials, observations=timed(1.0)).pareto] == [2, 3, 1]
    assert [each.point for each in _report(specification, catalog, trials, observations=timed(0.0)).pareto] == [2, 1]


def test_a_best_value_at_a_bound_becomes_advice(document: dict[str, Any], catalog: Catalog) -> None:
    specification, trials = _specification(document, catalog), [_trial(0, 1.0, {"lr": 0.099})]
    report = _report(specification, catalog, trials)
    advice = "muon: the best lr, 0.099, is at the bound 0.1; extend to 0.32"
    assert advice in report.notes
    assert bound_warnings(specification, trials, catalog=catalog) == [advice]
    assert bound_warnings(specification, [_trial(0, 1.0, {"lr": 0.01})], catalog=catalog) == []


def test_seeds_of_the_finals_that_diverged_are_told_and_left_out(document: dict[str, Any], catalog: Catalog) -> None:
    specification = _specification(document, catalog, finals={"keep": 1, "seeds": 3})
    config, ask = {"lr": 0.01}, {"phase": "final", "rank": 0}
    trials = [_trial(0, 1.0, config)]
    trials += [_trial(8 + k, 1.0 + k, config, point=0, seed_index=1 + k, ask=ask) for k in range(2)]
    trials += [_trial(10, 9.0, config, point=0, seed_index=3, ask=ask, state=TrialState.DIVERGED)]
    report = _report(specification, catalog, trials)
    finals = report.arms[0].finals
    assert finals is not None
    assert (dict(finals.values), finals.mean, finals.num_seeds, finals.num_diverged) == ({1: 1.0, 2: 2.0}, None, 3, 1)
    assert "muon: 1 of 3 seeds diverged and are not compared" in report.notes


def test_a_campaign_without_anything_yet_says_so_in_plain_json(document: dict[str, Any], catalog: Catalog) -> None:
    report = _report(_specification(document, catalog), catalog, [], state=CampaignState.RUNNING)
    assert report.notes[0] == "the campaign is RUNNING: what is not there yet may change everything"
    assert json.loads(json.dumps(report.document(), allow_nan=False))["arms"][0]["best"] is None


def test_a_search_that_has_not_ended_has_no_band(document: dict[str, Any], catalog: Catalog) -> None:
    trials = [_trial(number, 1.0 + number, {"lr": 0.01}) for number in range(6)]
    assert _report(_specification(document, catalog), catalog, trials).arms[0].curve.reason == ""
    trials.append(_trial(6, 1.0, {"lr": 0.01}, state=TrialState.RUNNING))
    reason = _report(_specification(document, catalog), catalog, trials).arms[0].curve.reason
    assert reason == "the search has not ended, and the points that end first are not a fair sample"


def test_a_point_that_diverged_counts_in_the_curve_and_one_that_was_given_does_not(
    document: dict[str, Any], catalog: Catalog
) -> None:
    trials = [_trial(0, 0.1, {"lr": 0.01}, ask={"origin": "initial"})]
    trials += [_trial(1, float("nan"), {"lr": 0.01}, state=TrialState.DIVERGED), _trial(2, 2.0, {"lr": 0.01})]
    curve = _report(_specification(document, catalog), catalog, trials).arms[0].curve
    assert curve.median == (float("inf"), 2.0)
    trials.append(_trial(3, 0.5, {"lr": 0.01}, state=TrialState.STOPPED))  # it took its turn and has no final value
    curve = _report(_specification(document, catalog), catalog, trials).arms[0].curve
    assert curve.median == (float("inf"), 2.0, 2.0)
    assert curve.reason == "some points were stopped before their end"
