"""The lives of campaigns and trials: every pair of state and event is decided here."""

from __future__ import annotations

import itertools

import pytest

from spectune.service.campaign.model.lifecycle import (
    CAMPAIGN_TRANSITIONS,
    TRIAL_TRANSITIONS,
    CampaignEvent,
    CampaignState,
    TrialEvent,
    TrialState,
    next_campaign_state,
    next_trial_state,
)
from spectune.service.errors import IllegalTransitionError

CAMPAIGN_MOVES = """
    QUEUED      launch=STARTING fail=FAILED pause=PAUSED cancel=CANCELLING
    STARTING    claim=RUNNING fail=FAILED lose_attempt=QUEUED pause=PAUSING cancel=CANCELLING
    RUNNING     succeed=SUCCEEDED fail=FAILED lose_attempt=QUEUED pause=PAUSING cancel=CANCELLING
    PAUSING     succeed=SUCCEEDED fail=FAILED lose_attempt=PAUSED pause=PAUSING halt=PAUSED cancel=CANCELLING
    PAUSED      pause=PAUSED resume=QUEUED cancel=CANCELLING
    CANCELLING  lose_attempt=CANCELLING cancel=CANCELLING vanish=CANCELLED
    SUCCEEDED   retry=QUEUED extend=QUEUED
    FAILED      retry=QUEUED extend=QUEUED
    CANCELLED
"""
TRIAL_MOVES = """
    PENDING     start=RUNNING fail=FAILED lose=LOST cancel=CANCELLED
    RUNNING     requeue=PENDING complete=COMPLETED stop=STOPPED diverge=DIVERGED fail=FAILED lose=LOST cancel=CANCELLED
    COMPLETED
    STOPPED
    DIVERGED
    FAILED      retry=PENDING
    LOST        retry=PENDING
    CANCELLED
"""


def _table(text: str) -> dict[tuple[str, str], str]:
    rows = [line.split() for line in text.strip().splitlines()]
    return {(state, move.split("=")[0]): move.split("=")[1] for state, *moves in rows for move in moves}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(CampaignState, CampaignEvent)))
def test_each_campaign_state_answers_each_event(state: CampaignState, event: CampaignEvent) -> None:
    expected = _table(CAMPAIGN_MOVES).get((state, event))
    if expected is None:
        with pytest.raises(IllegalTransitionError, match=f": got {event}$"):
            next_campaign_state(state, event)
    else:
        assert next_campaign_state(state, event) is CampaignState(expected)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(TrialState, TrialEvent)))
def test_each_trial_state_answers_each_event(state: TrialState, event: TrialEvent) -> None:
    expected = _table(TRIAL_MOVES).get((state, event))
    if expected is None:
        with pytest.raises(IllegalTransitionError, match=f": got {event}$"):
            next_trial_state(state, event)
    else:
        assert next_trial_state(state, event) is TrialState(expected)


def test_every_event_stands_in_its_table() -> None:
    assert set(CAMPAIGN_TRANSITIONS) == set(CampaignEvent)
    assert set(TRIAL_TRANSITIONS) == set(TrialEvent)


def test_an_illegal_move_tells_the_story() -> None:
    with pytest.raises(IllegalTransitionError) as caught:
        next_campaign_state(CampaignState.SUCCEEDED, CampaignEvent.PAUSE, story=["STARTING (launched)", "RUNNING"])
    assert str(caught.value) == (
        "SUCCEEDED allows retry, extend; what happened so far: STARTING (launched) -> RUNNING: got pause"
    )
    assert caught.value.story == ("STARTING (launched)", "RUNNING")


@pytest.mark.parametrize("state", CampaignState)
def test_a_campaign_can_be_cancelled_exactly_while_it_lives(state: CampaignState) -> None:
    assert state.is_terminal == (state not in CAMPAIGN_TRANSITIONS[CampaignEvent.CANCEL])


@pytest.mark.parametrize("state", TrialState)
def test_a_trial_can_be_cancelled_exactly_while_it_lives(state: TrialState) -> None:
    assert state.is_terminal == (state not in TRIAL_TRANSITIONS[TrialEvent.CANCEL])
