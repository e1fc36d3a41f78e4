"""One fault at a seeded moment of a real campaign: afterwards it equals the campaign that nobody disturbed.

Every test run strikes at three points; `make faults` at twenty of each kind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from spectune.service.ledger import Ledger
from tests.integration.conftest import Outcome, Run
from tests.integration.surviving import (
    INJECTED,
    Moment,
    Story,
    assert_gone,
    document,
    injected,
    moody,
    strike,
)
from tests.integration.test_run import assert_mlflow_equals_ledger
from tests.integration.two_nodes import TwoNodes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

ALL = bool(os.environ.get("SPECTUNE_FAULTS"))
SURVIVED = ("driver killed", "worker killed", "machine killed", "disk full", "owner killed", "callback raises")
STOPPING = ("SIGTERM", "SIGINT")
EVERY_RUN = [
    ("driver killed", 0),
    ("worker killed", 3),
    ("machine killed", 6),
]  # of one sampler: one undisturbed campaign
POINTS = [(fault, seed) for fault in SURVIVED for seed in range(20)] if ALL else EVERY_RUN
STOPS = [(fault, seed) for fault in STOPPING for seed in range(20)] if ALL else []
MISMEASURED = ("forgets", "is nan")
MOODS = [(fault, seed) for fault in MISMEASURED for seed in range(20)] if ALL else []
Undisturbed = Callable[..., Story]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The campaigns that nobody disturbs, each run once when it is first asked for."""

    @cache
    def run(sampler: str, made: Callable[[str], dict[str, Any]] = document) -> Story:
        folder = tmp_path_factory.mktemp(sampler)
        outcome = Run(made(sampler), folder, **injected(folder)).finish()
        assert outcome.exit_status == 0, outcome.stderr
        return Story.read(outcome)

    return run


def disturbed(fault: str, moment: Moment, folder: Path) -> Outcome:
    """Run a campaign into a fault and to its end; where its owner died, a second one goes on."""
    asked = moody(moment.sampler) if fault in MISMEASURED else document(moment.sampler)
    if fault == "machine killed":
        return without_machine(asked, moment, folder)
    run = Run(asked, folder, **injected(folder))
    run.wait_for(lambda run: run.num_observations() >= moment.num_observations)
    family = run.descendants()
    strike(run, fault, moment)
    outcome = run.finish()
    assert_gone(family)
    assert not folder.joinpath(fault.replace(" ", "_")).exists(), "the fault has not happened"
    if fault == "owner killed":
        (campaign,) = run.data.root.joinpath("campaigns").iterdir()
        outcome = Run(asked, folder, resume=campaign.name).finish()
    return outcome


def without_machine(asked: dict[str, Any], moment: Moment, folder: Path) -> Outcome:
    """Run a campaign in a cluster of two machines and kill the raylet of one of them."""
    with TwoNodes() as nodes:
        run = Run(asked, folder, **nodes.variables)
        run.wait_for(lambda run: run.num_observations() >= moment.num_observations)
        family = nodes.kill_second()
        outcome = run.finish()
        assert_gone(family)
    with Ledger.at(outcome.data.ledger) as ledger:
        lost = ledger.events(outcome.document["campaign_id"], "trial_lost")
        assert lost or moment.num_observations > 20, "nothing was lost: the fault has not happened"
    return outcome


@pytest.mark.parametrize(("fault", "seed"), POINTS)
def test_a_campaign_that_is_struck_ends_like_one_that_is_not(
    fault: str, seed: int, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    moment = Moment.drawn(fault, seed)
    expected = undisturbed(moment.sampler)
    outcome = disturbed(fault, moment, tmp_path)
    assert outcome.exit_status == 0, outcome.stderr
    assert Story.read(outcome) == expected
    assert_mlflow_equals_ledger(outcome)


@pytest.mark.parametrize(("fault", "seed"), STOPS)
def test_a_campaign_that_is_told_to_end_has_told_nothing_but_the_truth(
    fault: str, seed: int, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    moment = Moment.drawn(fault, seed)
    expected = undisturbed(moment.sampler)
    asked_at = time.monotonic()
    outcome = disturbed(fault, moment, tmp_path)
    assert time.monotonic() - asked_at < 120
    told = Story.read(outcome)
    assert (outcome.exit_status, outcome.document["state"]) in {(130, "PAUSED"), (0, "SUCCEEDED")}
    assert told.metrics.items() <= expected.metrics.items()
    assert {number: config for number, (config, *_) in told.states.items()}.items() <= {
        number: config for number, (config, *_) in expected.states.items()
    }.items()
    assert_mlflow_equals_ledger(outcome)


@pytest.mark.parametrize(("fault", "seed"), MOODS)
def test_a_report_that_measures_nothing_touches_its_own_trial_alone(
    fault: str, seed: int, undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(INJECTED)
    moment = Moment.drawn(fault, seed)
    expected = undisturbed(moment.sampler, moody)
    outcome = disturbed(fault, moment, tmp_path)
    assert outcome.exit_status == 0, outcome.stderr
    told = Story.read(outcome)
    if fault == "forgets":  # a failure of the task's code, which does not come back when the trial tries once more
        assert told == expected
    else:  # a fact, written down as it is; the loss that is trained on is finite, so the trial goes on
        (key,) = {key for key in expected.metrics if told.metrics.get(key) != expected.metrics[key]}
        assert told.metrics[key] == expected.metrics[key] | {"validation_loss": "nan"}
        assert told.metrics.keys() == expected.metrics.keys()
        assert told.states == expected.states
    assert_mlflow_equals_ledger(outcome)


@pytest.mark.skipif(not ALL, reason="part of `make faults`: a minute")
def test_two_campaigns_at_once_in_one_data_directory_do_not_touch_each_other(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    first = Run(document("random"), tmp_path)
    first.wait_for(Run.driver)  # it has read its file
    second = Run(document("random"), tmp_path)  # the same names, points and seeds, where anything shared would be seen
    outcomes = [first.finish(), second.finish()]
    assert [each.exit_status for each in outcomes] == [0, 0], [each.stderr for each in outcomes]
    assert [Story.read(each) for each in outcomes] == [undisturbed("random")] * 2
