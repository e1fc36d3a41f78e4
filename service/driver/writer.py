"""Moves the spool into the ledger behind the driver's back, beats its heart, and hears what users want.

Training never waits for the database: records are queued with their spool position and entered in batches by a thread.
While the ledger refuses, the batch is kept and tried again; what a crash leaves behind is on the spool.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from spectune.service.errors import LedgerError
from spectune.service.ledger.spool import Record
from spectune.service.ports import AttemptLedger

BATCH_SECONDS = 0.25
HEARTBEAT_SECONDS = 5.0
REQUESTS_SECONDS = 1.0
RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)
Entry = tuple[int, Record]


class Writer:
    """A thread between the spool and the ledger.

    Args:
        ledger: Where records go.
        campaign_id: Which campaign.
        attempt: The writer's attempt.

    Attributes:
        on_stops: Who is told, from the writer's thread, which trials users want to end; set it when somebody listens.
    """

    def __init__(self, ledger: AttemptLedger, campaign_id: str, attempt: int) -> None:
        self._ledger = ledger
        self._campaign_id = campaign_id
        self._attempt = attempt
        self._entries: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._failure: Exception | None = None
        self._handed_on: set[int] = set()
        self.on_stops: Callable[[Sequence[int]], None] | None = None
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> Exception | None:
        """Why nothing is written any more, if so; a FencedError where another attempt has taken over."""
        return self._failure

    def put(self, first_position: int, records: Sequence[Record]) -> None:
        """Queue records that are on the spool, the first of them at `first_position`."""
        for entry in enumerate(records, start=first_position):
            self._entries.put(entry)

    def close(self, *, timeout_seconds: float) -> bool:
        """Write what is queued and end.

        Args:
            timeout_seconds: How long to keep trying; what is not written then is on the spool.

        Returns:
            Whether the ledger holds everything.
        """
        self._closing.set()
        self._thread.join(timeout_seconds)
        is_complete = not self._thread.is_alive() and self._failure is None
        self._abandoned.set()
        self._thread.join()
        return is_complete

    def _run(self) -> None:
        beaten_at = asked_at = time.monotonic()
        batch: list[Entry] = []
        while True:
            closing = self._closing.wait(BATCH_SECONDS)
            batch += self._drain()
            try:
                if batch:
                    self._ledger.append(self._campaign_id, self._attempt, batch)
                    batch = []
                if time.monotonic() - asked_at >= REQUESTS_SECONDS:
                    self._look_for_requests()
                    asked_at = time.monotonic()
                if time.monotonic() - beaten_at >= HEARTBEAT_SECONDS:
                    self._ledger.beat(self._campaign_id, self._attempt)
                    beaten_at = time.monotonic()
            except LedgerError as error:
                _log.warning("the ledger refused a batch, trying again: %s", error)
                if self._abandoned.wait(RETRY_SECONDS):
                    return
                continue
            except Exception as error:  # fenced, or a mistake of ours: either way nothing more may be claimed
                self._failure = error
                return
            if closing and not batch and self._entries.empty():
                return

    def _look_for_requests(self) -> None:
        """Hand on which trials users want to end, each once."""
        if self.on_stops is None:
            return
        fresh = [each for each in self._ledger.stops_asked(self._campaign_id) if each not in self._handed_on]
        if fresh:
            self.on_stops(fresh)
            self._handed_on.update(fresh)

    def _drain(self) -> list[Entry]:
        drained: list[Entry] = []
        while not self._entries.empty():
            drained.append(self._entries.get())
        return drained
