"""A campaign whose arms did not get their share says so, and names no best."""

from __future__ import annotations

from typing import Any

import pytest

from spectune.service.campaign.analysis.comparability import TrialGroup, comparability
from spectune.service.campaign.model.lifecycle import CampaignState, TrialState

ARMS = ["muon", "root", "adamw"]
DONE = TrialState.COMPLETED
CANCELLED = TrialState.CANCELLED


def group(arm: int, state: TrialState = DONE, **changes: Any) -> TrialGroup:
    values: dict[str, Any] = {"is_finite": True, "is_unwanted": False, "most_steps": 90, "device_seconds": 4.0}
    return TrialGroup(arm=arm, state=state, **(values | changes))


def said(*groups: TrialGroup, state: CampaignState = CampaignState.SUCCEEDED) -> str:
    found = comparability(ARMS, groups, state=state)
    assert found.is_comparable is (not found.sentence)
    return found.sentence


def test_arms_that_all_had_their_points_are_comparable_whatever_they_cost() -> None:
    assert said(group(0), group(1, device_seconds=100.0), group(2, TrialState.STOPPED), group(2)) == ""


def test_arms_without_a_trial_or_with_cancelled_ones_alone_were_never_tried() -> None:
    waiting = group(2, CANCELLED, most_steps=0, device_seconds=0.0)
    assert said(group(0), waiting) == "root, adamw: never tried; arms are not comparable"


def test_a_campaign_of_which_nothing_was_tried_says_so_of_every_arm() -> None:
    assert said() == "muon, root, adamw: never tried; arms are not comparable"


@pytest.mark.parametrize("state", [CampaignState.SUCCEEDED, CampaignState.CANCELLED, CampaignState.FAILED])
def test_what_each_arm_lacks_is_told_apart(state: CampaignState) -> None:
    groups = [group(0), group(1, TrialState.FAILED), group(2, CANCELLED)]
    expected = "root: every trial failed; adamw: no trial completed; arms are not comparable"
    assert said(*groups, state=state) == expected


def test_an_arm_that_was_cut_short_with_less_than_half_the_time_of_another_lacks_its_share() -> None:
    short = [group(1, device_seconds=1.0), group(1, CANCELLED, device_seconds=0.5)]
    text = "root: 1.5 of 4 device seconds; arms are not comparable"
    assert said(group(0), *short, group(2)) == text
    assert said(group(0), group(1, device_seconds=1.0), group(2)) == ""  # it had all its points
    assert said(group(0), group(1, device_seconds=1.6), short[1], group(2)) == ""


def test_trials_that_a_user_ended_cut_no_arm_short() -> None:
    assert said(group(0), group(1, device_seconds=0.1), group(1, CANCELLED, is_unwanted=True), group(2)) == ""


def test_an_arm_that_diverged_had_its_share_and_is_told_of() -> None:
    groups = [group(0), group(1, TrialState.DIVERGED), group(2, DONE, is_finite=False)]
    found = comparability(ARMS, groups, state=CampaignState.SUCCEEDED)
    assert found.is_comparable
    assert found.notes == ["root, adamw: every trial diverged"]


@pytest.mark.parametrize("state", [CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.CANCELLING])
def test_a_campaign_that_goes_on_lacks_nothing_yet(state: CampaignState) -> None:
    assert said(group(0), state=state) == ""


def test_a_single_arm_is_compared_with_none() -> None:
    assert comparability(["muon"], [], state=CampaignState.CANCELLED).sentence == "muon: never tried"
