"""One campaign run by its owner, without a server: launches attempts and watches them.

The campaign belongs to the process that runs it. A driver that is lost is replaced by the next attempt, after a
pause; one that is asked to pause or to cancel is given time, and the campaign counts as paused or cancelled only when
its processes are gone.
An owner holds a lock on its campaign's folder, so that what a killed owner left behind can be told from what is alive,
and be brought to rest.
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState, TrialState
from spectune.service.campaign.model.records import CampaignRecord, Event, TrialRecord
from spectune.service.data_directory import DataDirectory
from spectune.service.driver.exit_codes import ExitCode
from spectune.service.errors import CampaignBusyError, IllegalTransitionError
from spectune.service.ledger import Ledger
from spectune.service.ledger.recovery import import_earlier_spools
from spectune.service.ports import DriverProcess, Launcher

MAX_ATTEMPTS = 3
RELAUNCH_SECONDS = 2.0  # times the attempts so far
STOP_SECONDS = 30.0  # for a driver that was asked to pause or to cancel

_log = logging.getLogger(__name__)


class EmbeddedCampaign:
    """A campaign and its current attempt.

    Args:
        ledger: The truth.
        launcher: Starts drivers.
        data: Where files are.
        campaign_id: The id of the campaign; new to `start`, in the ledger to `resume`.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        ledger: Ledger,
        launcher: Launcher,
        *,
        data: DataDirectory,
        campaign_id: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._launcher = launcher
        self._data = data
        self._campaign_id = campaign_id
        self._clock = clock
        self._owner_lock: IO[bytes] | None = None
        self._driver: DriverProcess | None = None
        self._attempt = 0
        self._num_losses = 0  # attempts lost in a row without an observation between
        self._relaunch_at: float | None = None
        self._stop_asked_at: float | None = None

    def start(self, *, name: str, specification: Mapping[str, Any]) -> None:
        """Enter the campaign in the ledger and launch its first attempt."""
        self._owner_lock = _take_lock(self._data.owner_lock(self._campaign_id))
        assert self._owner_lock is not None, f"a new campaign has no owner: got {self._campaign_id}"
        self._ledger.create_campaign(self._campaign_id, name=name, specification=specification)
        self._launch()

    def resume(self) -> None:
        """Go on with a campaign that is PAUSED: the process that ran it was killed, or its driver was told to pause.

        Raises:
            CampaignNotFoundError: There is no such campaign.
            CampaignBusyError: Another process runs it.
            IllegalTransitionError: It is not paused; the message tells its story.
        """
        self.record()  # there is one
        self._owner_lock = _take_lock(self._data.owner_lock(self._campaign_id))
        if self._owner_lock is None:
            raise CampaignBusyError(f"another process runs the campaign: got {self._campaign_id!r}")
        try:
            self._move(CampaignEvent.RESUME, reason="user", message="resumed by its owner")
        except IllegalTransitionError:
            self.close()
            raise
        self._launch()

    def record(self) -> CampaignRecord:
        """Read where the campaign stands."""
        return self._ledger.campaign(self._campaign_id)

    def trials(self) -> list[TrialRecord]:
        """Read the campaign's trials."""
        return self._ledger.trials(self._campaign_id)

    def plans(self) -> list[Event]:
        """Read what was found out about training the trials of each arm together."""
        return self._ledger.events(self._campaign_id, "planned")

    def fusion_checks(self) -> list[Event]:
        """Read what came of comparing fused steps with steps alone."""
        return self._ledger.events(self._campaign_id, "fusion_checked")

    def watch(self) -> bool:
        """Look after the driver once; call it every second or so. It may be called again after it raised.

        Returns:
            Whether the campaign has come to rest: ended, or paused.

        Raises:
            LedgerError: The ledger cannot be written just now.
        """
        if self._relaunch_at is not None:
            self._relaunch()
        elif self._driver is not None:
            self._watch_driver(self._driver)
        return self._driver is None and self._relaunch_at is None

    def pause(self) -> None:
        """Ask for a clean stop after which the campaign can be resumed: trials keep their checkpoints."""
        if self._ask(CampaignEvent.PAUSE, "paused by its owner") and self._driver is not None:
            self._driver.request_pause()

    def cancel(self) -> None:
        """Ask for a clean stop for good; asked a second time, end every process at once."""
        if self.record().state is CampaignState.CANCELLING:
            self.kill()
        elif self._ask(CampaignEvent.CANCEL, "cancelled by its owner") and self._driver is not None:
            self._driver.request_stop()

    def kill(self) -> None:
        """End every process of the campaign at once; `watch` finds out what that means."""
        if self._driver is not None:
            self._driver.kill()

    def _ask(self, event: CampaignEvent, message: str) -> bool:
        """Enter what the owner wants; False if the campaign has ended in this very moment."""
        try:
            self._move(event, reason="user", message=message)
        except IllegalTransitionError:
            return False
        self._stop_asked_at = self._clock()
        return True

    def close(self) -> None:
        """Let go of the campaign; it does so itself when it comes to rest, and the kernel when its process dies."""
        if self._owner_lock is not None:
            self._owner_lock.close()
            self._owner_lock = None

    def _watch_driver(self, driver: DriverProcess) -> None:
        exit_code = driver.poll()
        if exit_code is not None:
            driver.kill()  # whatever outlived it
            self._ledger.end_attempt(self._campaign_id, self._attempt, exit_code=exit_code)
            self._after(exit_code)
        elif self._stop_asked_at is not None and self._clock() - self._stop_asked_at > STOP_SECONDS:
            _log.warning("the driver did not stop within %g s and is killed", STOP_SECONDS)
            driver.kill()

    def _launch(self) -> None:
        self._attempt = self._ledger.begin_attempt(self._campaign_id)
        self._move(CampaignEvent.LAUNCH, reason="launching", message=f"attempt {self._attempt}")
        self._relaunch_at = None
        try:
            self._driver = self._launcher.launch(self._campaign_id, self._attempt)
        except OSError as error:
            self._after(ExitCode.INFRASTRUCTURE, f"its process could not be started: {error}")

    def _relaunch(self) -> None:
        """Launch the next attempt when its time has come, unless the campaign was paused or cancelled meanwhile."""
        assert self._relaunch_at is not None
        state = self.record().state
        if state is CampaignState.PAUSED:
            settle(self._ledger, self._data, self._campaign_id, TrialState.PENDING, reason="campaign_paused")
            self._rest()
        elif state is CampaignState.CANCELLING:
            self._end_cancelled()
        elif self._clock() >= self._relaunch_at:
            self._launch()

    def _after(self, exit_code: int, what: str | None = None) -> None:
        """Do what an ended attempt calls for."""
        what = what or self._how_it_ended(exit_code)
        state = self.record().state
        if state.is_terminal or state is CampaignState.PAUSED:
            self._rest()
        elif state is CampaignState.CANCELLING:
            self._end_cancelled()
        elif state is CampaignState.PAUSING:
            self._end_paused()
        elif exit_code == ExitCode.CANCELLED:  # somebody asked the driver itself
            self._move(CampaignEvent.CANCEL, reason="driver_asked", message="its driver was interrupted")
            self._end_cancelled()
        elif exit_code == ExitCode.CLUSTER_AWAY:
            self._relaunch_after("cluster_away", f"waits for its cluster: {self._last_words()}")
        else:
            self._after_loss(exit_code, what)

    def _after_loss(self, exit_code: int, what: str) -> None:
        """Launch another attempt after a pause, unless too many were lost in a row without an observation between."""
        has_progressed = self._ledger.has_progressed(self._campaign_id, self._attempt)
        self._num_losses = 1 if has_progressed else self._num_losses + 1
        is_last = self._num_losses >= MAX_ATTEMPTS
        if exit_code == ExitCode.SPECIFICATION:
            why = self._last_words() or "no reason given"
            message = f"the campaign cannot be trained on this machine as it is now: {why}"
            if is_last:  # a campaign that was accepted is not given up: whoever mends it resumes it
                self._move(CampaignEvent.PAUSE, reason="specification", message=message)
                settle(self._ledger, self._data, self._campaign_id, TrialState.PENDING, reason="campaign_paused")
                self._move(CampaignEvent.HALT, reason="specification", message=message)
                self._rest()
            else:
                self._relaunch_after("specification", message)
        elif is_last:
            self._fail("driver_lost", f"{MAX_ATTEMPTS} drivers were lost; of the last, {what}")
        else:
            self._relaunch_after("driver_lost", what)

    def _relaunch_after(self, reason: str, message: str) -> None:
        self._move(CampaignEvent.LOSE_ATTEMPT, reason=reason, message=message)
        self._driver = None
        self._relaunch_at = self._clock() + RELAUNCH_SECONDS * max(1, self._num_losses)

    def _last_words(self) -> str:
        return self._data.last_words(self._campaign_id, self._attempt)

    def _how_it_ended(self, exit_code: int) -> str:
        """Say with what code a driver ended and, if it left no reason elsewhere, what it said last."""
        last = self._last_words()
        return f"its exit code was {exit_code}" + (f": {last}" if last else "")

    def _end_paused(self) -> None:
        """Bring to rest a campaign whose driver ended without pausing it, as a killed one does."""
        settle(self._ledger, self._data, self._campaign_id, TrialState.PENDING, reason="campaign_paused")
        self._move(CampaignEvent.HALT, reason="user", message="paused by its owner")
        self._rest()

    def _end_cancelled(self) -> None:
        settle(self._ledger, self._data, self._campaign_id, TrialState.CANCELLED, reason="campaign_cancelled")
        self._move(CampaignEvent.VANISH, reason="user", message="cancelled by its owner")
        self._rest()

    def _fail(self, reason: str, message: str) -> None:
        settle(self._ledger, self._data, self._campaign_id, TrialState.LOST, reason=reason)
        self._move(CampaignEvent.FAIL, reason=reason, message=message)
        self._rest()

    def _rest(self) -> None:
        self._driver = self._relaunch_at = None
        self.close()

    def _move(self, event: CampaignEvent, *, reason: str, message: str) -> None:
        self._ledger.move_campaign(self._campaign_id, event, reason=reason, message=message)


def settle(ledger: Ledger, data: DataDirectory, campaign_id: str, state: TrialState, *, reason: str) -> None:
    """Bring the ledger to rest after a driver that did not do so itself: import its spool, move its open trials."""
    fence = ledger.begin_attempt(campaign_id)
    import_earlier_spools(ledger, campaign_id, attempt=fence, spool=data.spool)
    ledger.move_open_trials(campaign_id, state, reason=reason)


def settle_orphans(ledger: Ledger, data: DataDirectory) -> list[str]:
    """Bring campaigns to rest whose owner was killed together with their driver.

    Returns:
        The ids of the campaigns that stood as live and were not; they are PAUSED or CANCELLED now.
    """
    orphans = []
    for campaign in ledger.campaigns():
        if campaign.state.is_terminal or campaign.state is CampaignState.PAUSED:
            continue
        lock = _take_lock(data.owner_lock(campaign.campaign_id))
        if lock is not None:
            with lock:
                try:
                    _settle_orphan(ledger, data, campaign)
                except Exception as error:  # of this campaign: the one that is to run is not concerned
                    _log.error("campaign %s cannot be brought to rest: %s", campaign.campaign_id, error, exc_info=error)
                    continue
            orphans.append(campaign.campaign_id)
    return orphans


def _settle_orphan(ledger: Ledger, data: DataDirectory, campaign: CampaignRecord) -> None:
    message = "the process that ran it was killed"
    is_cancelling = campaign.state is CampaignState.CANCELLING
    end = TrialState.CANCELLED if is_cancelling else TrialState.PENDING
    settle(ledger, data, campaign.campaign_id, end, reason="owner_lost")
    if is_cancelling:
        events = [CampaignEvent.VANISH]
    elif campaign.state is CampaignState.QUEUED:
        events = [CampaignEvent.PAUSE]
    else:
        events = [CampaignEvent.PAUSE, CampaignEvent.HALT]
    for event in events:
        ledger.move_campaign(campaign.campaign_id, event, reason="owner_lost", message=message)


def _take_lock(path: Path) -> IO[bytes] | None:
    """Lock a file for as long as it is open, at most until this process dies; None where another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
