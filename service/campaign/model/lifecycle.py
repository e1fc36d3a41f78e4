"""The lives of campaigns and trials: two tables (event, state) -> state, and nothing else that decides.

    campaign   QUEUED -> STARTING -> RUNNING -> SUCCEEDED | FAILED
               RUNNING -> PAUSING -> PAUSED -> QUEUED          any live state -> CANCELLING -> CANCELLED
               an attempt lost puts the campaign back into the queue; retrying or extending reopens what has ended
    trial      PENDING -> RUNNING -> COMPLETED | STOPPED | DIVERGED | FAILED | LOST | CANCELLED
               RUNNING -> PENDING when its worker is lost or the campaign pauses

The tables are total: a pair that is not listed is illegal, and asking for it raises with the story so far.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import TypeVar, assert_never

from spectune.service.errors import IllegalTransitionError


class CampaignState(StrEnum):
    """Where a campaign stands."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing happens any more unless somebody reopens it."""
        match self:
            case CampaignState.SUCCEEDED | CampaignState.FAILED | CampaignState.CANCELLED:
                return True
            case CampaignState.QUEUED | CampaignState.STARTING | CampaignState.RUNNING:
                return False
            case CampaignState.PAUSING | CampaignState.PAUSED | CampaignState.CANCELLING:
                return False
            case _:
                assert_never(self)


class CampaignEvent(StrEnum):
    """What can happen to a campaign."""

    LAUNCH = "launch"  # an attempt is being started
    CLAIM = "claim"  # its driver is alive
    SUCCEED = "succeed"  # its work is done
    FAIL = "fail"  # it cannot go on
    LOSE_ATTEMPT = "lose_attempt"  # its driver is gone, the campaign is not
    PAUSE = "pause"  # a user asks
    HALT = "halt"  # nothing of a pausing campaign runs any more
    RESUME = "resume"
    CANCEL = "cancel"  # a user asks
    VANISH = "vanish"  # no process of a cancelled campaign is left
    RETRY = "retry"  # failed trials are to run again
    EXTEND = "extend"  # more work was added


class TrialState(StrEnum):
    """Where a trial stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"
    DIVERGED = "DIVERGED"
    FAILED = "FAILED"
    LOST = "LOST"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether the trial has ended."""
        match self:
            case TrialState.PENDING | TrialState.RUNNING:
                return False
            case TrialState.COMPLETED | TrialState.STOPPED | TrialState.DIVERGED:
                return True
            case TrialState.FAILED | TrialState.LOST | TrialState.CANCELLED:
                return True
            case _:
                assert_never(self)


class TrialEvent(StrEnum):
    """What can happen to a trial."""

    START = "start"  # a worker has it
    REQUEUE = "requeue"  # its worker is lost, or the campaign pauses
    COMPLETE = "complete"  # it reached the end of its schedule
    STOP = "stop"  # the stopping rule ended it
    DIVERGE = "diverge"
    FAIL = "fail"
    LOSE = "lose"  # its lease expired and nobody knows more
    CANCEL = "cancel"
    RETRY = "retry"  # a user wants it to run again


STOPPED_BY_USER = "stopped_by_user"  # the reason of a CANCELLED trial that a user wanted to end

_C = CampaignState
_T = TrialState

CAMPAIGN_TRANSITIONS: Mapping[CampaignEvent, Mapping[CampaignState, CampaignState]] = {
    CampaignEvent.LAUNCH: {_C.QUEUED: _C.STARTING},
    CampaignEvent.CLAIM: {_C.STARTING: _C.RUNNING},
    CampaignEvent.SUCCEED: {_C.RUNNING: _C.SUCCEEDED, _C.PAUSING: _C.SUCCEEDED},
    CampaignEvent.FAIL: {
        _C.QUEUED: _C.FAILED,
        _C.STARTING: _C.FAILED,
        _C.RUNNING: _C.FAILED,
        _C.PAUSING: _C.FAILED,
    },
    # Nothing runs any more, so a pause is complete; a cancel still has to make sure of it.
    CampaignEvent.LOSE_ATTEMPT: {
        _C.STARTING: _C.QUEUED,
        _C.RUNNING: _C.QUEUED,
        _C.PAUSING: _C.PAUSED,
        _C.CANCELLING: _C.CANCELLING,
    },
    CampaignEvent.PAUSE: {
        _C.QUEUED: _C.PAUSED,
        _C.STARTING: _C.PAUSING,
        _C.RUNNING: _C.PAUSING,
        _C.PAUSING: _C.PAUSING,
        _C.PAUSED: _C.PAUSED,
    },
    CampaignEvent.HALT: {_C.PAUSING: _C.PAUSED},
    CampaignEvent.RESUME: {_C.PAUSED: _C.QUEUED},
    CampaignEvent.CANCEL: {
        _C.QUEUED: _C.CANCELLING,
        _C.STARTING: _C.CANCELLING,
        _C.RUNNING: _C.CANCELLING,
        _C.PAUSING: _C.CANCELLING,
        _C.PAUSED: _C.CANCELLING,
        _C.CANCELLING: _C.CANCELLING,
    },
    CampaignEvent.VANISH: {_C.CANCELLING: _C.CANCELLED},
    CampaignEvent.RETRY: {_C.SUCCEEDED: _C.QUEUED, _C.FAILED: _C.QUEUED},
    CampaignEvent.EXTEND: {_C.SUCCEEDED: _C.QUEUED, _C.FAILED: _C.QUEUED},
}

TRIAL_TRANSITIONS: Mapping[TrialEvent, Mapping[TrialState, TrialState]] = {
    TrialEvent.START: {_T.PENDING: _T.RUNNING},
    TrialEvent.REQUEUE: {_T.RUNNING: _T.PENDING},
    TrialEvent.COMPLETE: {_T.RUNNING: _T.COMPLETED},
    TrialEvent.STOP: {_T.RUNNING: _T.STOPPED},
    TrialEvent.DIVERGE: {_T.RUNNING: _T.DIVERGED},
    TrialEvent.FAIL: {_T.PENDING: _T.FAILED, _T.RUNNING: _T.FAILED},
    TrialEvent.LOSE: {_T.PENDING: _T.LOST, _T.RUNNING: _T.LOST},
    TrialEvent.CANCEL: {_T.PENDING: _T.CANCELLED, _T.RUNNING: _T.CANCELLED},
    TrialEvent.RETRY: {_T.FAILED: _T.PENDING, _T.LOST: _T.PENDING},
}

_State = TypeVar("_State", bound=StrEnum)
_Event = TypeVar("_Event", bound=StrEnum)


def has_failures(state: CampaignState, trials: Collection[TrialState]) -> bool:
    """Return whether retrying a campaign would run anything again: it has failed itself, or one of its trials has."""
    return state is CampaignState.FAILED or not TRIAL_TRANSITIONS[TrialEvent.RETRY].keys().isdisjoint(trials)


def next_campaign_state(state: CampaignState, event: CampaignEvent, *, story: Iterable[str] = ()) -> CampaignState:
    """Return where an event leads a campaign.

    Args:
        state: Where it stands.
        event: What happens.
        story: Its moves so far, for the message of an illegal one.

    Raises:
        IllegalTransitionError: The state does not allow the event.
    """
    return _next(CAMPAIGN_TRANSITIONS, state, event, story)


def next_trial_state(state: TrialState, event: TrialEvent, *, story: Iterable[str] = ()) -> TrialState:
    """Return where an event leads a trial.

    Args:
        state: Where it stands.
        event: What happens.
        story: Its moves so far, for the message of an illegal one.

    Raises:
        IllegalTransitionError: The state does not allow the event.
    """
    return _next(TRIAL_TRANSITIONS, state, event, story)


def _next(
    transitions: Mapping[_Event, Mapping[_State, _State]], state: _State, event: _Event, story: Iterable[str]
) -> _State:
    if state not in transitions[event]:
        allowed = [other.value for other, moves in transitions.items() if state in moves]
        raise IllegalTransitionError(state=state, event=event, allowed=allowed, story=story)
    return transitions[event][state]
