"""The driver's one thread of decisions: stimuli in, spool, then commands.

Tune's callbacks only put stimuli into a queue. This thread takes them one after the other, lets the scheduler decide,
forces the decision's records to the spool, hands them to the ledger's writer, and only then posts the commands. If it
cannot go on (the disk is full, another attempt has taken over), it tells every slot to end and keeps the reason.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ray import cloudpickle

from spectune.service.driver.decision import Decision
from spectune.service.driver.scheduler import Scheduler
from spectune.service.driver.stop_kinds import StopKind
from spectune.service.driver.writer import Writer
from spectune.service.ledger.spool import Spool
from spectune.trainers.worker.arithmetic import Execution
from spectune.trainers.worker.messages import SlotCommand, SlotReport

MAX_BARREN_LOSSES = 5  # slots lost in a row without any report
_CHECK_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Board(Protocol):
    """Where commands are given."""

    def post(self, slot: str, number: int, command: SlotCommand) -> None:
        """Give the command on a slot's report."""

    def stop(self) -> None:
        """Ask every slot to interrupt its stretch."""


class ActorBoard:
    """The board behind a Ray actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def post(self, slot: str, number: int, command: SlotCommand) -> None:
        """Give the command on a slot's report."""
        self._actor.post.remote(slot, number, cloudpickle.dumps(command))

    def stop(self) -> None:
        """Ask every slot to interrupt its stretch."""
        self._actor.stop.remote()


@dataclass(frozen=True)
class _Stimulus:
    name: str
    act: Callable[[], Decision | None]


class EventLoop:
    """Carries stimuli to the scheduler and its decisions to the world.

    Args:
        scheduler: Makes the decisions.
        spool: Holds the records of a decision on disk before its commands are given.
        writer: Enters them into the ledger.
        board: Where commands are given.
    """

    def __init__(self, scheduler: Scheduler, *, spool: Spool, writer: Writer, board: Board) -> None:
        self._scheduler = scheduler
        self._spool = spool
        self._writer = writer
        self._board = board
        self._position = spool.append(())
        self._stimuli: queue.SimpleQueue[_Stimulus | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._slots: dict[str, int] = {}  # open slots and the number of the command that each may wait for
        self._barren_losses = 0
        self._looked_at = time.monotonic()
        self._limited_at: float | None = None
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="event-loop", daemon=True)

    def start(self, first: Decision) -> None:
        """Begin with what a restored scheduler decided."""
        self._carry_out(first)
        self._thread.start()

    def close(self) -> None:
        """End the thread when it has taken everything that was put."""
        self._stimuli.put(None)
        if self._thread.is_alive():
            self._thread.join()

    # Stimuli, from any thread

    def open_slot(self, slot: str, place: str = "", execution: Execution | None = None) -> None:
        """A slot's worker is there, on some machine, and asks for work."""
        with self._lock:
            self._slots[slot] = 0
        self._put("open", lambda: self._scheduler.open_slot(slot, place, execution))

    def take(self, slot: str, report: SlotReport) -> None:
        """A slot reported."""
        with self._lock:
            self._slots[slot] = report.number
        self._put("report", lambda: self._take(slot, report))

    def close_slot(self, slot: str) -> None:
        """A slot ended as it was told to."""
        with self._lock:
            self._slots.pop(slot, None)
        self._put("close", lambda: self._scheduler.close_slot(slot))

    def lose_slot(self, slot: str, message: str) -> None:
        """A slot's worker is gone."""
        with self._lock:
            self._slots.pop(slot, None)
        self._put("lose", lambda: self._lose(slot, message))

    def stop(self, kind: StopKind) -> None:
        """The campaign is to stop; harmless when repeated, and safe in a signal handler: it takes no lock."""
        self._put("stop", lambda: self._stop(kind))

    def stop_trials(self, numbers: Sequence[int]) -> None:
        """Users want these trials to end; harmless when repeated."""
        self._put("stop trials", lambda: self._scheduler.stop_trials(numbers))

    def settle(self, timeout_seconds: float) -> None:
        """Wait until whatever was put before is carried out, but no longer than that."""
        settled = threading.Event()
        self._put("settle", settled.set)
        settled.wait(timeout_seconds)

    # Questions, from any thread

    @property
    def failure(self) -> Exception | None:
        """Why no decision can be made any more, if so."""
        return self._failure

    @property
    def limited_at(self) -> float | None:
        """When a budget was spent or the target reached, in `time.monotonic` seconds; None while that is not so."""
        return self._limited_at

    def num_slots_wanted(self) -> int:
        """Count the slots for which there is work."""
        with self._lock:
            return 0 if self._failure is not None else self._scheduler.num_slots_wanted()

    def quarantined(self) -> frozenset[str]:
        """The machines on which no slot is to be opened."""
        with self._lock:
            return self._scheduler.quarantined

    def is_over(self) -> bool:
        """Return whether every slot has ended and nothing is left to do."""
        with self._lock:
            if self._failure is not None:
                return not self._slots
            return self._stimuli.empty() and self._scheduler.is_over() and not self._slots

    # What stimuli do

    def _put(self, name: str, act: Callable[[], Decision | None]) -> None:
        self._stimuli.put(_Stimulus(name, act))

    def _lose(self, slot: str, message: str) -> Decision:
        self._barren_losses += 1
        if self._barren_losses >= MAX_BARREN_LOSSES:
            raise RuntimeError(f"{MAX_BARREN_LOSSES} workers in a row were lost before any report; the last: {message}")
        return self._scheduler.lose(slot, message)

    def _take(self, slot: str, report: SlotReport) -> Decision:
        self._barren_losses = 0
        return self._scheduler.take(slot, report)

    def _stop(self, kind: StopKind) -> Decision | None:
        self._board.stop()
        return None if self._scheduler.is_stopping else self._scheduler.stop(kind)

    # The thread

    def _run(self) -> None:
        while True:
            try:
                stimulus = self._stimuli.get(timeout=_CHECK_SECONDS)
            except queue.Empty:
                self._check_writer()
                self._look_at_clock()
                continue
            if stimulus is None:
                return
            if self._failure is None:
                self._act(stimulus)
                self._check_writer()
                self._look_at_clock()
            else:
                self._release_slots()

    def _act(self, stimulus: _Stimulus) -> None:
        try:
            with self._lock:
                decision = stimulus.act()
            if decision is not None:
                self._carry_out(decision)
        except Exception as error:
            _log.exception("the stimulus %r could not be carried out", stimulus.name)
            self._fail(error)

    def _look_at_clock(self) -> None:
        """Let the scheduler check what time has used up, about once a second."""
        if self._failure is None and time.monotonic() - self._looked_at >= _CHECK_SECONDS:
            self._looked_at = time.monotonic()
            self._act(_Stimulus("clock", self._scheduler.check_limits))

    def _carry_out(self, decision: Decision) -> None:
        first = self._position + 1
        if decision.records:
            self._position = self._spool.append(decision.records)
            self._writer.put(first, decision.records)
        for slot, number, command in decision.commands:
            self._board.post(slot, number, command)
        if self._scheduler.exhausted is not None and self._limited_at is None:
            self._limited_at = time.monotonic()
            self._board.stop()

    def _check_writer(self) -> None:
        if self._failure is None and self._writer.failure is not None:
            self._fail(self._writer.failure)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._board.stop()
        self._release_slots()

    def _release_slots(self) -> None:
        """Tell every slot to end, whatever it waits for; nothing more is written down."""
        with self._lock:
            waiting = dict(self._slots)
        for slot, number in waiting.items():
            self._board.post(slot, number, SlotCommand(finish=True))
