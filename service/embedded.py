"""One campaign run by its owner, without a server: launches attempts, watches them, and keeps the tracker up to date.

The campaign belongs to the process that runs it. A driver that is lost is replaced by the next attempt; a driver that
is asked to cancel is given time, and the campaign counts as cancelled only when its processes are gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from service.campaign.lifecycle import CampaignEvent, CampaignState, TrialState
from service.campaign.records import CampaignRecord, TrialRecord
from service.data_directory import DataDirectory
from service.driver.exit_codes import ExitCode
from service.errors import TrackingError
from service.ledger import Ledger
from service.ledger.recovery import import_earlier_spools
from service.ports import DriverProcess, Launcher
from service.tracking.projector import Projector

MAX_ATTEMPTS = 3
CANCEL_SECONDS = 30.0
PROJECTION_SECONDS = 1.0

_log = logging.getLogger(__name__)


class EmbeddedCampaign:
    """A campaign and its current attempt.

    Args:
        ledger: The truth.
        launcher: Starts drivers.
        data: Where files are.
        campaign_id: The id of the campaign, which does not exist yet.
    """

    def __init__(self, ledger: Ledger, launcher: Launcher, *, data: DataDirectory, campaign_id: str) -> None:
        self._ledger = ledger
        self._launcher = launcher
        self._data = data
        self._campaign_id = campaign_id
        self._driver: DriverProcess | None = None
        self._attempt = 0
        self._cancel_asked_at: float | None = None

    def start(self, *, name: str, specification: Mapping[str, Any]) -> None:
        """Enter the campaign in the ledger and launch its first attempt."""
        self._ledger.create_campaign(self._campaign_id, name=name, specification=specification)
        self._launch()

    def record(self) -> CampaignRecord:
        """Read where the campaign stands."""
        return self._ledger.campaign(self._campaign_id)

    def trials(self) -> list[TrialRecord]:
        """Read the campaign's trials."""
        return self._ledger.trials(self._campaign_id)

    def watch(self) -> bool:
        """Look after the driver once; call it every second or so.

        Returns:
            Whether the campaign has come to rest: ended, or paused.
        """
        if self._driver is None:
            return True
        exit_code = self._driver.poll()
        if exit_code is not None:
            self._driver.kill()  # whatever outlived it
            self._driver = None
            self._ledger.end_attempt(self._campaign_id, self._attempt, exit_code=exit_code)
            self._after(exit_code)
        elif self._cancel_asked_at is not None and time.monotonic() - self._cancel_asked_at > CANCEL_SECONDS:
            _log.warning("the driver did not stop within %g s and is killed", CANCEL_SECONDS)
            self._driver.kill()
        return self._driver is None

    def cancel(self) -> None:
        """Ask for a clean stop; asked a second time, end every process at once."""
        if self._driver is None:
            return
        if self._cancel_asked_at is not None:
            self._driver.kill()
            return
        self._cancel_asked_at = time.monotonic()
        if not self.record().state.is_terminal:
            self._move(CampaignEvent.CANCEL, reason="user", message="cancelled by its owner")
            self._driver.request_stop()

    def _launch(self) -> None:
        self._attempt = self._ledger.begin_attempt(self._campaign_id)
        self._move(CampaignEvent.LAUNCH, reason="launching", message=f"attempt {self._attempt}")
        self._driver = self._launcher.launch(self._campaign_id, self._attempt)

    def _after(self, exit_code: int) -> None:
        """Do what an ended attempt calls for."""
        state = self.record().state
        if state.is_terminal or state is CampaignState.PAUSED:
            return
        if state is CampaignState.CANCELLING:
            self._settle(TrialState.CANCELLED, reason="campaign_cancelled")
            self._move(CampaignEvent.VANISH, reason="user", message="cancelled by its owner")
        elif exit_code == ExitCode.SPECIFICATION:
            self._fail("specification", "the driver refused the specification")
        elif self._attempt < MAX_ATTEMPTS:
            self._move(CampaignEvent.LOSE_ATTEMPT, reason="driver_lost", message=f"its exit code was {exit_code}")
            self._launch()
        else:
            self._fail("driver_lost", f"{MAX_ATTEMPTS} drivers were lost; the exit code of the last was {exit_code}")

    def _fail(self, reason: str, message: str) -> None:
        self._settle(TrialState.LOST, reason=reason)
        self._move(CampaignEvent.FAIL, reason=reason, message=message)

    def _settle(self, state: TrialState, *, reason: str) -> None:
        """Bring the ledger to rest after a driver that did not do so itself."""
        fence = self._ledger.begin_attempt(self._campaign_id)
        import_earlier_spools(self._ledger, self._campaign_id, attempt=fence, spool=self._data.spool)
        self._ledger.close_trials(self._campaign_id, state, reason=reason)

    def _move(self, event: CampaignEvent, *, reason: str, message: str) -> None:
        self._ledger.move_campaign(self._campaign_id, event, reason=reason, message=message)


class Projection:
    """A thread that keeps a tracker up to date while a campaign runs.

    Args:
        make_projector: Makes the projector, inside the thread: trackers are slow to import and to open.
    """

    def __init__(self, make_projector: Callable[[], Projector]) -> None:
        self._make_projector = make_projector
        self._projector: Projector | None = None
        self._ending = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="projection", daemon=True)
        self._thread.start()

    def finish(self) -> str:
        """Project what is left and end.

        Returns:
            The address where the campaign can be looked at.

        Raises:
            TrackingError: The tracker lags behind the ledger.
        """
        self._ending.set()
        self._thread.join()
        if self._error is not None or self._projector is None:
            raise TrackingError(f"the tracker lags behind the ledger, which holds everything: got {self._error}")
        return self._projector.page()

    def _run(self) -> None:
        while True:
            ending = self._ending.wait(PROJECTION_SECONDS)
            try:
                self._projector = self._projector or self._make_projector()
                self._projector.catch_up()
                self._error = None
            except Exception as error:  # a tracker may fail in its own ways; the campaign goes on
                if self._error is None:
                    _log.warning("the tracker lags behind: %s", error)
                self._error = error
            if ending:
                return
