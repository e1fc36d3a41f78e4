"""Back-off doubles up to its bound, however long something fails."""

from __future__ import annotations

import pytest

from spectune.service.back_off import back_off_seconds
from spectune.service.campaign.model.lifecycle import CampaignState
from spectune.service.control.decisions import conclude
from spectune.service.control.trouble import LONGEST_PAUSE_SECONDS, Trouble
from spectune.service.driver.exit_codes import ExitCode
from spectune.service.tracking.breaker import LONGEST_SECONDS, Breaker


def test_the_pause_doubles_up_to_its_bound() -> None:
    pauses = [back_off_seconds(number, first=1.0, longest=10.0) for number in range(6)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


@pytest.mark.parametrize("num_before", [64, 1023, 1024, 10**6, 10**400])
def test_no_number_of_failures_is_too_many(num_before: int) -> None:
    assert back_off_seconds(num_before, first=2.0, longest=300.0) == 300.0


def test_a_campaign_in_trouble_for_a_week_is_still_left_alone_for_a_while() -> None:
    now = [0.0]
    trouble = Trouble(lambda: now[0])
    for _ in range(2100):  # one every five minutes
        trouble.enter("c", RuntimeError("broken"), state="RUNNING")
        now[0] += LONGEST_PAUSE_SECONDS
    trouble.enter("c", RuntimeError("broken"), state="RUNNING")
    assert trouble.is_waiting("c", state="RUNNING")


def test_a_tracker_that_is_away_for_weeks_is_left_alone_for_a_while() -> None:
    breaker = Breaker(clock=lambda: 0.0)
    assert [breaker.fail() for _ in range(3000)][-1] == LONGEST_SECONDS


def test_a_campaign_waits_for_its_cluster_however_often_it_has_failed() -> None:
    found = conclude(CampaignState.RUNNING, ExitCode.CLUSTER_AWAY, num_failures=5000)
    assert found.pause_seconds == 60.0
