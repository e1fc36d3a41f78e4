"""What to do next, as pure functions of what is seen: each look gives the same answer, whoever looks and how often.

QUEUED                          launch when its turn comes (`admission.py`)
STARTING, RUNNING   driver gone      conclude: rest, fail, or queue again after a pause
                    driver forgotten wait until its heartbeat has stopped, then conclude
                    driver silent    kill it
PAUSING             driver lives     ask it to pause, kill it after a while
                    driver gone      conclude: PAUSED
CANCELLING          driver lives     ask it to stop, kill it after a while
                    driver gone      conclude: CANCELLED once no process is left
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from spectune.service.back_off import back_off_seconds
from spectune.service.campaign.model.lifecycle import CampaignState
from spectune.service.campaign.model.submission import Submission
from spectune.service.driver.exit_codes import ExitCode

MAX_FAILURES = 3
STOP_SECONDS = 30.0  # a driver that was asked to stop has so long
START_SECONDS = 120.0  # from launch to claim: imports on a loaded machine
SILENT_SECONDS = 300.0  # heartbeats come every 5 s
LOST_SECONDS = 30.0  # without a heartbeat, before a driver that nobody can see counts as gone
_FIRST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 60.0


class DriverState(StrEnum):
    """What is known of the driver of a campaign's current attempt."""

    ALIVE = "alive"
    GONE = "gone"
    FORGOTTEN = "forgotten"  # whoever started it does not know it any more, and nobody here can see its process
    UNKNOWN = "unknown"  # whoever would know does not answer


@dataclass(frozen=True)
class Seen:
    """One campaign and its driver.

    Attributes:
        heartbeat_age_seconds: Since its driver was last known to be alive; None before it claimed.
        state_age_seconds: Since the campaign's last move.
    """

    submission: Submission
    driver: DriverState
    heartbeat_age_seconds: float | None
    state_age_seconds: float

    @property
    def state(self) -> CampaignState:
        """The campaign's state."""
        return self.submission.campaign.state


class Action(StrEnum):
    """What to do about a campaign that holds a driver."""

    WAIT = "wait"
    ASK_TO_STOP = "ask_to_stop"
    ASK_TO_PAUSE = "ask_to_pause"
    KILL = "kill"
    CONCLUDE = "conclude"


class ProcessEnding(StrEnum):
    """What the end of a driver means for its campaign."""

    REST = "rest"  # it has ended or paused by itself
    CANCELLED = "cancelled"
    PAUSED = "paused"
    FAILED = "failed"
    AGAIN = "again"


@dataclass(frozen=True)
class Conclusion:
    """What an ended driver calls for.

    Attributes:
        reason: One word or two for programs.
        message: A sentence for people.
        pause_seconds: How long to wait before the next attempt.
        is_failure: Whether the attempt counts among those of which only so many may be lost in a row.
    """

    ending: ProcessEnding
    reason: str = ""
    message: str = ""
    pause_seconds: float = 0.0
    is_failure: bool = True


def action_for(seen: Seen) -> Action:
    """Decide what to do about a campaign that is not queued."""
    if seen.driver is DriverState.UNKNOWN:
        return Action.WAIT
    if seen.driver is DriverState.GONE:
        return Action.CONCLUDE
    if seen.driver is DriverState.FORGOTTEN:  # it may live: a Ray head that restarts forgets its jobs
        age = seen.state_age_seconds if seen.heartbeat_age_seconds is None else seen.heartbeat_age_seconds
        return Action.CONCLUDE if age > LOST_SECONDS else Action.WAIT
    is_late = seen.state_age_seconds > STOP_SECONDS
    match seen.state:
        case CampaignState.STARTING:
            return Action.KILL if seen.state_age_seconds > START_SECONDS else Action.WAIT
        case CampaignState.RUNNING:
            silent = seen.heartbeat_age_seconds is not None and seen.heartbeat_age_seconds > SILENT_SECONDS
            return Action.KILL if silent else Action.WAIT
        case CampaignState.PAUSING:
            return Action.KILL if is_late else Action.ASK_TO_PAUSE
        case CampaignState.CANCELLING:
            return Action.KILL if is_late else Action.ASK_TO_STOP
        case CampaignState.QUEUED | CampaignState.PAUSED:
            return Action.WAIT
        case CampaignState.SUCCEEDED | CampaignState.FAILED | CampaignState.CANCELLED:
            return Action.WAIT
        case _:
            assert_never(seen.state)


def conclude(state: CampaignState, exit_code: int | None, *, num_failures: int, last_words: str = "") -> Conclusion:
    """Decide what the end of a driver means.

    Args:
        state: Where the campaign stands now.
        exit_code: How the driver ended; None where nobody knows.
        num_failures: How many attempts were lost in a row before this one, without an observation between.
        last_words: Why it ended, as far as it said.
    """
    if state.is_terminal or state in (CampaignState.PAUSED, CampaignState.QUEUED):
        return Conclusion(ProcessEnding.REST)
    if state is CampaignState.CANCELLING:
        return Conclusion(ProcessEnding.CANCELLED, "user", "cancelled by a user")
    if state is CampaignState.PAUSING:
        return Conclusion(ProcessEnding.PAUSED, "user", "paused by a user")
    if exit_code == ExitCode.CANCELLED:
        return Conclusion(ProcessEnding.CANCELLED, "driver_asked", "its driver was interrupted")
    pause = back_off_seconds(num_failures, first=_FIRST_PAUSE_SECONDS, longest=_LONGEST_PAUSE_SECONDS)
    if exit_code == ExitCode.CLUSTER_AWAY:
        return Conclusion(
            ProcessEnding.AGAIN, "cluster_away", f"waits for its cluster: {last_words}", pause, is_failure=False
        )
    if exit_code == ExitCode.SPECIFICATION:
        message = (
            f"the campaign cannot be trained on the driver's machine as it is now: {last_words or 'no reason given'}"
        )
        if (
            num_failures + 1 >= MAX_FAILURES
        ):  # a campaign that was accepted is not given up: whoever mends it resumes it
            return Conclusion(ProcessEnding.PAUSED, "specification", message)
        return Conclusion(ProcessEnding.AGAIN, "specification", message, pause)
    what = "its driver vanished" if exit_code is None else f"its driver's exit code was {exit_code}"
    what += f": {last_words}" if last_words else ""
    if num_failures + 1 >= MAX_FAILURES:
        return Conclusion(ProcessEnding.FAILED, "driver_lost", f"{MAX_FAILURES} drivers were lost; of the last, {what}")
    return Conclusion(ProcessEnding.AGAIN, "driver_lost", what, pause)
