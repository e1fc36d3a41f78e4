"""What the reconciler does about each state of a campaign and its driver."""

from __future__ import annotations

import dataclasses

import pytest

from spectune.service.campaign.model.lifecycle import CampaignState
from spectune.service.control.decisions import (
    MAX_FAILURES,
    Action,
    DriverState,
    ProcessEnding,
    Seen,
    action_for,
    conclude,
)
from spectune.service.driver.exit_codes import ExitCode
from tests.service.control.test_admission import submission

_S, _D, _A = CampaignState, DriverState, Action


def seen(state: CampaignState, driver: DriverState, *, age: float = 1.0, heartbeat: float | None = 1.0) -> Seen:
    made = submission("c")
    campaign = dataclasses.replace(made.campaign, state=state)
    return Seen(dataclasses.replace(made, campaign=campaign), driver, heartbeat, age)


@pytest.mark.parametrize(
    ("state", "driver", "age", "heartbeat", "action"),
    [
        (_S.STARTING, _D.ALIVE, 1.0, None, _A.WAIT),
        (_S.STARTING, _D.ALIVE, 1000.0, None, _A.KILL),
        (_S.STARTING, _D.GONE, 1.0, None, _A.CONCLUDE),
        (_S.RUNNING, _D.ALIVE, 1e6, 6.0, _A.WAIT),
        (_S.RUNNING, _D.ALIVE, 1e6, 301.0, _A.KILL),
        (_S.RUNNING, _D.GONE, 1.0, 1.0, _A.CONCLUDE),
        (_S.RUNNING, _D.UNKNOWN, 1e6, 1e6, _A.WAIT),
        (_S.PAUSING, _D.ALIVE, 1.0, 1.0, _A.ASK_TO_PAUSE),
        (_S.PAUSING, _D.ALIVE, 31.0, 1.0, _A.KILL),
        (_S.CANCELLING, _D.ALIVE, 1.0, 1.0, _A.ASK_TO_STOP),
        (_S.CANCELLING, _D.ALIVE, 31.0, 1.0, _A.KILL),
        (_S.CANCELLING, _D.GONE, 1.0, None, _A.CONCLUDE),
        (_S.CANCELLING, _D.UNKNOWN, 1e6, None, _A.WAIT),
    ],
)
def test_what_is_seen_says_what_to_do(
    state: CampaignState, driver: DriverState, age: float, heartbeat: float | None, action: Action
) -> None:
    assert action_for(seen(state, driver, age=age, heartbeat=heartbeat)) is action


@pytest.mark.parametrize(
    ("state", "exit_code", "num_failures", "ending"),
    [
        (_S.SUCCEEDED, 0, 0, ProcessEnding.REST),
        (_S.PAUSED, ExitCode.PAUSED, 0, ProcessEnding.REST),
        (_S.RUNNING, ExitCode.INFRASTRUCTURE, 0, ProcessEnding.AGAIN),
        (_S.RUNNING, -9, MAX_FAILURES - 1, ProcessEnding.FAILED),
        (_S.STARTING, None, 0, ProcessEnding.AGAIN),
        (_S.RUNNING, ExitCode.SPECIFICATION, 0, ProcessEnding.AGAIN),
        (_S.RUNNING, ExitCode.SPECIFICATION, MAX_FAILURES - 1, ProcessEnding.PAUSED),
        (_S.RUNNING, ExitCode.CLUSTER_AWAY, 9 * MAX_FAILURES, ProcessEnding.AGAIN),
        (_S.RUNNING, ExitCode.CANCELLED, 0, ProcessEnding.CANCELLED),
        (_S.CANCELLING, -9, 0, ProcessEnding.CANCELLED),
        (_S.CANCELLING, None, 0, ProcessEnding.CANCELLED),
        (_S.PAUSING, -9, 0, ProcessEnding.PAUSED),
    ],
)
def test_how_a_driver_ended_says_what_becomes_of_its_campaign(
    state: CampaignState, exit_code: int | None, num_failures: int, ending: ProcessEnding
) -> None:
    assert conclude(state, exit_code, num_failures=num_failures).ending is ending


def test_pauses_between_attempts_grow() -> None:
    pauses = [conclude(_S.RUNNING, -9, num_failures=number).pause_seconds for number in range(MAX_FAILURES - 1)]
    assert pauses == [2.0, 4.0]


def test_the_reason_of_a_driver_that_left_none_is_the_last_line_of_its_log() -> None:
    ended = conclude(
        CampaignState.STARTING, 20, num_failures=MAX_FAILURES - 1, last_words="the socket's path is too long"
    )
    assert ended.ending is ProcessEnding.FAILED
    assert ended.message.endswith("its driver's exit code was 20: the socket's path is too long")
    assert conclude(CampaignState.STARTING, 20, num_failures=0).message == "its driver's exit code was 20"
    refused = conclude(CampaignState.RUNNING, ExitCode.SPECIFICATION, num_failures=0, last_words="/task/corpus: gone")
    assert refused.message.endswith("as it is now: /task/corpus: gone")
    away = conclude(CampaignState.RUNNING, ExitCode.CLUSTER_AWAY, num_failures=0, last_words="nothing answers")
    assert (away.message, away.is_failure) == ("waits for its cluster: nothing answers", False)


@pytest.mark.parametrize(
    ("heartbeat_age", "state_age", "action"),
    [(3.0, 99.0, Action.WAIT), (31.0, 99.0, Action.CONCLUDE), (None, 3.0, Action.WAIT), (None, 31.0, Action.CONCLUDE)],
)
def test_a_driver_that_its_head_forgot_counts_as_gone_once_its_heart_has_stopped(
    heartbeat_age: float | None, state_age: float, action: Action
) -> None:
    assert action_for(seen(_S.RUNNING, _D.FORGOTTEN, age=state_age, heartbeat=heartbeat_age)) is action
    assert action_for(seen(_S.RUNNING, _D.GONE, age=state_age, heartbeat=heartbeat_age)) is Action.CONCLUDE
