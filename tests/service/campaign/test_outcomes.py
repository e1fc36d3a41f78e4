"""How a point did, from how its seeds did."""

from __future__ import annotations

import math

import pytest

from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.outcomes import SeedHistory, mean_reports, point_outcome, worst_finite

COMPLETED = SeedHistory({5: 2.0, 10: 1.0}, TrialState.COMPLETED, 1.0)
STOPPED = SeedHistory({5: 4.0}, TrialState.STOPPED)
DIVERGED = SeedHistory({5: math.inf}, TrialState.DIVERGED)
FAILED = SeedHistory({}, TrialState.FAILED)
OPEN = SeedHistory({5: 3.0})


@pytest.mark.parametrize(
    ("seeds", "outcome"),
    [
        ([COMPLETED, OPEN], None),
        ([DIVERGED, OPEN], None),
        ([COMPLETED, COMPLETED], TrialState.COMPLETED),
        ([COMPLETED, STOPPED], TrialState.STOPPED),
        ([COMPLETED, STOPPED, DIVERGED], TrialState.DIVERGED),
        ([COMPLETED, SeedHistory({}, TrialState.COMPLETED, math.nan)], TrialState.DIVERGED),
        ([COMPLETED, FAILED], TrialState.COMPLETED),
        ([STOPPED, SeedHistory({}, TrialState.LOST)], TrialState.STOPPED),
        ([FAILED, SeedHistory({}, TrialState.CANCELLED)], TrialState.FAILED),
    ],
)
def test_the_seeds_of_a_point_decide_how_it_ended(seeds: list[SeedHistory], outcome: TrialState | None) -> None:
    assert point_outcome(seeds) is outcome


def test_reports_are_averaged_where_all_telling_seeds_have_a_finite_one() -> None:
    assert mean_reports([COMPLETED, STOPPED, FAILED]) == {5: 3.0}
    assert mean_reports([SeedHistory({1: 1.0, 2: math.nan}, TrialState.STOPPED)]) == {1: 1.0}
    assert mean_reports([FAILED]) == {}


def test_the_worst_value_is_finite_and_knows_which_way_is_worse() -> None:
    assert worst_finite([[COMPLETED], [STOPPED, DIVERGED]], mode="minimize") == 4.0
    assert worst_finite([[COMPLETED], [STOPPED, DIVERGED]], mode="maximize") == 1.0
    assert worst_finite([[DIVERGED]], mode="minimize") == 0.0
