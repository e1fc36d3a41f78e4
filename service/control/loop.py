"""The loop: under a lease it looks, decides and acts, every few seconds or as soon as somebody wakes it.

It keeps nothing that it could not find again: who is killed at any point is replaced by one that looks afresh. What it
does to the ledger is one transaction each, legal only from the state that was seen; a driver that was started by
somebody who lost the lease meanwhile is fenced when it claims its attempt.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState, TrialState
from spectune.service.campaign.model.submission import Submission
from spectune.service.control.admission import Admission, Capacity, admit
from spectune.service.control.decisions import (
    STOP_SECONDS,
    Action,
    Conclusion,
    DriverState,
    ProcessEnding,
    Seen,
    action_for,
    conclude,
)
from spectune.service.control.embedded import settle
from spectune.service.control.trouble import Trouble
from spectune.service.data_directory import DataDirectory
from spectune.service.errors import (
    CampaignNotFoundError,
    IllegalTransitionError,
    LauncherError,
    LeadershipError,
    ServiceError,
)
from spectune.service.ledger import ServiceLedger
from spectune.service.ledger.submissions import LEADER
from spectune.service.ports import LastingDriver, LastingLauncher

TICK_SECONDS = 2.0
SHORTEST_SECONDS = 0.2
LAUNCH_PAUSE_SECONDS = 10.0
LEASE_SECONDS = 10.0

_Attempt = tuple[str, int]
_log = logging.getLogger(__name__)


class Reconciler:
    """Keeps campaigns going.

    Args:
        ledger: The truth.
        launcher: Starts drivers and finds them again.
        data: Where spools are.
        capacity: What running campaigns share.
        holder: What this replica calls itself, as no other does.
    """

    def __init__(
        self,
        ledger: ServiceLedger,
        launcher: LastingLauncher,
        *,
        data: DataDirectory,
        capacity: Capacity,
        holder: str,
    ) -> None:
        self._ledger = ledger
        self._launcher = launcher
        self._data = data
        self._capacity = capacity
        self._holder = holder
        self._drivers: dict[_Attempt, LastingDriver] = {}
        self._asked: set[tuple[_Attempt, Action]] = set()
        self._not_launched: set[_Attempt] = set()  # the launcher refused them
        self._told: dict[str, str] = {}  # what the log says of each campaign's launcher, so that it says it once
        self._trouble = Trouble()
        self._awake = threading.Event()
        self._ending = threading.Event()
        self.is_leader = False

    def wake(self) -> None:
        """Look soon: something was changed."""
        self._awake.set()

    def run(self) -> None:
        """Look again and again, until `end` is called; a ledger that does not answer is asked again."""
        while not self._ending.is_set():
            try:
                self.tick()
            except ServiceError as error:
                _log.warning("the reconciler could not look: %s", error)
            except Exception:  # the service must outlive a mistake of ours
                _log.exception("the reconciler failed")
            self._ending.wait(SHORTEST_SECONDS)  # who is woken fifty times a second need not look as often
            self._awake.wait(TICK_SECONDS - SHORTEST_SECONDS)
            self._awake.clear()
        if self.is_leader:
            self._ledger.leave_lease(LEADER, holder=self._holder)

    def end(self) -> None:
        """Let `run` return after its present look; drivers go on."""
        self._ending.set()
        self._awake.set()

    def tick(self) -> bool:
        """Look once, and do what there is to do.

        Returns:
            Whether this replica leads.
        """
        self._reap()
        self.is_leader = self._ledger.take_lease(LEADER, holder=self._holder, seconds=LEASE_SECONDS)
        if not self.is_leader:
            return False
        live = self._ledger.live_submissions()
        self._trouble.keep_only({each.campaign_id for each in live})
        now = self._ledger.clock()
        held = [each for each in live if each.campaign.state is not CampaignState.QUEUED]
        heartbeats = self._ledger.heartbeats([each.campaign_id for each in held])
        for submission in held:
            self._guarded(submission, lambda each=submission: self._look_after(each, heartbeats, now))  # type: ignore[misc]
        queued = [each for each in live if each.campaign.state is CampaignState.QUEUED]
        if queued and (problem := self._launcher.problem()) is not None:
            self._explain_all([(each, each.queue_position, f"nothing can be launched: {problem}") for each in queued])
            return True
        admission = self._admit(queued, held, now)
        for submission in admission.launched:
            self._guarded(submission, lambda each=submission: self._launch(each))  # type: ignore[misc]
        self._explain_all([(place.submission, place.position, place.waiting_for) for place in admission.waiting])
        return True

    def problem(self) -> str | None:
        """Return which campaigns cannot be looked after just now; None if there are none. The log says why."""
        campaign_ids = sorted(self._trouble.sentences())
        return f"cannot be looked after just now: {', '.join(campaign_ids)}" if campaign_ids else None

    def _admit(self, queued: Sequence[Submission], held: Sequence[Submission], now: int) -> Admission:
        """Decide who is launched, without campaigns whose documents make deciding impossible."""
        try:
            return admit(queued, held, capacity=self._capacity, now=now)
        except Exception:  # of one of them
            return admit(self._decidable(queued, now), self._decidable(held, now), capacity=self._capacity, now=now)

    def _decidable(self, submissions: Sequence[Submission], now: int) -> list[Submission]:
        decidable = []
        for submission in submissions:
            try:
                admit([submission], [], capacity=self._capacity, now=now)
                admit([], [submission], capacity=self._capacity, now=now)
            except Exception as error:
                self._trouble.enter(submission.campaign_id, error, state=submission.campaign.state)
            else:
                decidable.append(submission)
        return decidable

    # One campaign

    def _guarded(self, submission: Submission, act: Callable[[], None]) -> None:
        """Do something for one campaign, unless trouble makes it wait; whatever it raises holds up no other."""
        campaign_id = submission.campaign_id
        if self._trouble.is_waiting(campaign_id, state=submission.campaign.state):
            return
        try:
            act()
        except (IllegalTransitionError, LeadershipError) as error:  # somebody was faster: the next look will see
            _log.info("campaign %s: %s", campaign_id, error)
        except LauncherError as error:
            self._tell_once(campaign_id, str(error))
        except Exception as error:  # of this campaign, whatever it is
            sentence = self._trouble.enter(campaign_id, error, state=submission.campaign.state)
            with suppress(ServiceError):
                self._explain(submission, submission.queue_position, f"cannot be looked after just now: {sentence}")
        else:
            if self._trouble.clear(campaign_id):
                self._explain(submission, submission.queue_position, "")

    def _tell_once(self, campaign_id: str, trouble: str) -> None:
        """Log trouble that may last; it is said again when it has changed, or has come back."""
        if self._told.get(campaign_id) != trouble:
            _log.warning("campaign %s: %s", campaign_id, trouble)
            self._told[campaign_id] = trouble

    def _look_after(self, submission: Submission, heartbeats: dict[str, int | None], now: int) -> None:
        heartbeat = heartbeats.get(submission.campaign_id)
        driver: LastingDriver | None = None
        exit_code: int | None = None
        try:
            driver = self._driver(submission)
            if driver is not None:
                exit_code = driver.poll()
            state = self._state_of(submission, is_alive=driver is not None and exit_code is None)
        except LauncherError as error:
            self._explain(submission, None, f"nothing is known of its driver: {error}")
            state = DriverState.UNKNOWN
        seen = Seen(
            submission=submission,
            driver=state,
            heartbeat_age_seconds=None if heartbeat is None else (now - heartbeat) / 1000,
            state_age_seconds=(now - submission.campaign.since) / 1000,
        )
        self._act(submission, action_for(seen), driver, exit_code)

    def _act(self, submission: Submission, action: Action, driver: LastingDriver | None, exit_code: int | None) -> None:
        match action:
            case Action.WAIT:
                return
            case Action.CONCLUDE:
                self._conclude(submission, exit_code)
            case Action.KILL:
                assert driver is not None, "only what lives is killed"
                _log.warning("campaign %s: its driver is killed", submission.campaign_id)
                driver.kill()
            case Action.ASK_TO_STOP | Action.ASK_TO_PAUSE:
                assert driver is not None, "only what lives is asked"
                asked = (_attempt(submission), action)
                if asked not in self._asked:
                    driver.request_stop() if action is Action.ASK_TO_STOP else driver.request_pause()
                    self._asked.add(asked)

    def _driver(self, submission: Submission) -> LastingDriver | None:
        """Return the driver of a campaign's current attempt, found again where this process does not know it."""
        attempt = _attempt(submission)
        if attempt not in self._drivers:
            found = self._launcher.find(*attempt)
            if found is None:
                return None
            _log.info("campaign %s: the driver of attempt %d was adopted", *attempt)
            self._drivers[attempt] = found
        return self._drivers[attempt]

    def _state_of(self, submission: Submission, *, is_alive: bool) -> DriverState:
        """Return what is known of a driver; one that left no exit code on another machine may live there."""
        if is_alive:
            return DriverState.ALIVE
        is_certain = self._launcher.sees_processes or self._launcher.exit_code(*_attempt(submission)) is not None
        return DriverState.GONE if is_certain else DriverState.FORGOTTEN

    def _is_free(self, submission: Submission) -> bool:
        """Return whether nothing is left of the attempt before, whose driver may still be ending its Ray."""
        campaign_id, attempt = _attempt(submission)
        if attempt == 0:
            return True
        driver = self._driver(submission)
        if driver is not None and driver.poll() is None:
            self._explain(submission, None, f"waits for the end of attempt {attempt}")
            if (self._ledger.clock() - submission.campaign.since) / 1000 > STOP_SECONDS:
                driver.kill()
            return False
        if remains := self._launcher.end_remains(campaign_id, attempt):
            self._explain(submission, None, f"waits for the end of {', '.join(remains)}")
            return False
        return True

    def _launch(self, submission: Submission) -> None:
        if not self._is_free(submission):
            return
        attempt = self._ledger.launch(submission.campaign_id, holder=self._holder)
        try:
            self._drivers[submission.campaign_id, attempt] = self._launcher.launch(submission.campaign_id, attempt)
            _log.info("campaign %s: attempt %d was launched", submission.campaign_id, attempt)
        except (OSError, LauncherError) as error:
            self._not_launched.add((submission.campaign_id, attempt))
            _log.warning("campaign %s: attempt %d could not be launched: %s", submission.campaign_id, attempt, error)

    def _conclude(self, submission: Submission, exit_code: int | None) -> None:
        """Do what an ended driver calls for, once nothing of it is left."""
        campaign_id, attempt = _attempt(submission)
        remains = self._launcher.end_remains(campaign_id, attempt)
        if remains:
            self._explain(submission, None, f"waits for the end of {', '.join(remains)}")
            return
        exit_code = self._launcher.exit_code(campaign_id, attempt) if exit_code is None else exit_code
        state = self._ledger.submission(campaign_id).campaign.state  # a driver says last what it has come to
        last_words = self._data.last_words(campaign_id, attempt)
        num_failures = 0 if self._ledger.has_progressed(campaign_id, attempt) else submission.num_failures
        conclusion = conclude(state, exit_code, num_failures=num_failures, last_words=last_words)
        if (campaign_id, attempt) in self._not_launched and conclusion.ending in (
            ProcessEnding.AGAIN,
            ProcessEnding.FAILED,
        ):
            message = "its driver could not be started"
            conclusion = Conclusion(ProcessEnding.AGAIN, "driver_lost", message, LAUNCH_PAUSE_SECONDS, is_failure=False)
        match conclusion.ending:
            case ProcessEnding.REST:
                return
            case ProcessEnding.AGAIN:
                pause = conclusion.pause_seconds
                self._ledger.lose_attempt(
                    campaign_id,
                    message=conclusion.message,
                    retry_seconds=pause,
                    num_failures=num_failures + conclusion.is_failure,
                    reason=conclusion.reason,
                )
                what = (campaign_id, attempt, conclusion.message, pause)
                _log.warning("campaign %s: attempt %d was lost (%s); the next begins in %g s", *what)
            case ProcessEnding.PAUSED:
                if state is not CampaignState.PAUSING:
                    self._move(campaign_id, CampaignEvent.PAUSE, conclusion.reason, conclusion.message)
                settle(self._ledger, self._data, campaign_id, TrialState.PENDING, reason="campaign_paused")
                self._move(campaign_id, CampaignEvent.HALT, conclusion.reason, conclusion.message)
            case ProcessEnding.CANCELLED:
                if state is not CampaignState.CANCELLING:
                    self._move(campaign_id, CampaignEvent.CANCEL, conclusion.reason, conclusion.message)
                settle(self._ledger, self._data, campaign_id, TrialState.CANCELLED, reason="campaign_cancelled")
                self._move(campaign_id, CampaignEvent.VANISH, conclusion.reason, conclusion.message)
            case ProcessEnding.FAILED:
                settle(self._ledger, self._data, campaign_id, TrialState.LOST, reason=conclusion.reason)
                self._move(campaign_id, CampaignEvent.FAIL, conclusion.reason, conclusion.message)
        self._record_end(campaign_id, attempt, exit_code)

    def _move(self, campaign_id: str, event: CampaignEvent, reason: str, message: str) -> None:
        self._ledger.move_campaign(campaign_id, event, reason=reason, message=message)

    def _explain(self, submission: Submission, position: int | None, waiting_for: str) -> None:
        self._explain_all([(submission, position, waiting_for)])

    def _explain_all(self, waits: Sequence[tuple[Submission, int | None, str]]) -> None:
        """Say what campaigns wait for, where that has changed."""
        changed = {
            submission.campaign_id: (position, waiting_for)
            for submission, position, waiting_for in waits
            if (submission.queue_position, submission.waiting_for) != (position, waiting_for)
        }
        if changed:
            self._ledger.explain(changed)

    def _reap(self) -> None:
        """Take notice of drivers that have ended; of campaigns that are live still, `_look_after` does."""
        for attempt, driver in list(self._drivers.items()):
            try:
                exit_code = driver.poll()
                self._told.pop(attempt[0], None)
                if exit_code is None:
                    continue
                campaign = self._ledger.campaign(attempt[0])
                if campaign.attempt == attempt[1] and not (
                    campaign.state.is_terminal or campaign.state in (CampaignState.PAUSED, CampaignState.QUEUED)
                ):
                    continue
                driver.kill()  # whatever outlived it
                self._record_end(*attempt, exit_code)
                _log.info("campaign %s: %s after attempt %d", attempt[0], campaign.state, attempt[1])
            except CampaignNotFoundError:  # deleted meanwhile
                driver.kill()
            except ServiceError as error:
                self._tell_once(attempt[0], str(error))
                continue
            except Exception as error:  # of this campaign, whatever it is
                self._trouble.enter(attempt[0], error, state="")
                continue
            self._forget(attempt)

    def _record_end(self, campaign_id: str, attempt: int, exit_code: int | None) -> None:
        if attempt and exit_code is not None and self._ledger.attempts(campaign_id)[attempt - 1].ended_at is None:
            self._ledger.end_attempt(campaign_id, attempt, exit_code=exit_code)

    def _forget(self, attempt: _Attempt) -> None:
        self._drivers.pop(attempt, None)
        self._not_launched.discard(attempt)
        self._asked = {asked for asked in self._asked if asked[0] != attempt}


def _attempt(submission: Submission) -> _Attempt:
    return submission.campaign_id, submission.campaign.attempt
