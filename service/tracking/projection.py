"""Keeps a tracker up to date with the campaigns of one process while one of them runs, and finishes at its end."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from spectune.service.errors import TrackingError
from spectune.service.tracking.breaker import Breaker
from spectune.service.tracking.pacing import rest_seconds
from spectune.service.tracking.projector import Projector

RETRY_SECONDS = 1.0
PROJECTION_TRIES = 5  # at the end
SILENT_SECONDS = 3.0
YIELDING = 15  # of 19: enough for a few percent of a processor that others want

_log = logging.getLogger(__name__)


class Projection:
    """A thread that keeps a tracker up to date with some campaigns, the last of which is running.

    Args:
        make_projectors: Makes their projectors, inside the thread: trackers are slow to import and to open.
    """

    def __init__(self, make_projectors: Callable[[], Sequence[Projector]]) -> None:
        self._make_projectors = make_projectors
        self._projectors: Sequence[Projector] = ()
        self._ending = threading.Event()
        self._error: Exception | None = None
        self._breaker = Breaker()
        self._thread = threading.Thread(target=self._run, name="projection", daemon=True)
        self._thread.start()

    def finish(
        self, *, give_up: Callable[[], bool] = lambda: False, on_wait: Callable[[str], None] = lambda _: None
    ) -> str:
        """Project what is left and end.

        Args:
            give_up: Asked now and then; True leaves what is left to a later projection.
            on_wait: Told once, after a few seconds, what is waited for.

        Returns:
            The address where the running campaign can be looked at.

        Raises:
            TrackingError: The tracker lags behind the ledger.
        """
        self._ending.set()
        _hurry(self._thread)
        speaks_at = time.monotonic() + SILENT_SECONDS
        while self._thread.is_alive() and not give_up():
            self._thread.join(0.1)
            if time.monotonic() > speaks_at:
                speaks_at = math.inf
                why = "" if self._error is None else f", which fails so far ({self._error})"
                on_wait(f"waiting for MLflow{why}; Ctrl-C leaves the rest to the next run")
        if self._thread.is_alive():
            raise TrackingError("the tracker lags behind the ledger, which holds everything: got an interrupt")
        if self._error is not None:
            raise TrackingError(f"the tracker lags behind the ledger, which holds everything: got {self._error}")
        return self._projectors[-1].page()

    def _run(self) -> None:
        _yield_processor()
        tries_left, rest = PROJECTION_TRIES, rest_seconds(0.0)
        while tries_left:
            is_ending = self._ending.wait(rest)
            began = time.monotonic()
            if is_ending or not self._breaker.is_open():
                self._catch_up()
            rest = rest_seconds(time.monotonic() - began)
            if is_ending:
                tries_left = tries_left - 1 if self._error is not None else 0
                if tries_left:
                    time.sleep(RETRY_SECONDS)

    def _catch_up(self) -> None:
        try:
            self._projectors = self._projectors or self._make_projectors()
            for projector in self._projectors:
                projector.catch_up()
            for projector in self._projectors:  # no campaign waits for another's documents
                projector.attach()
            self._error = None
            self._breaker.succeed()
        except Exception as error:  # a tracker may fail in its own ways; the campaign goes on
            if self._error is None:
                _log.warning("the tracker lags behind: %s", error)
            self._error = error
            self._breaker.fail()


def _yield_processor() -> None:
    """Let this thread, and those that it starts, run when nothing trains: training never waits for tracking."""
    if sys.platform == "linux":  # elsewhere priorities belong to processes
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), YIELDING)


def _hurry(thread: threading.Thread) -> None:
    """Let a thread that yielded go on like others, where that is allowed: nothing trains any more."""
    if sys.platform == "linux" and thread.native_id is not None:
        with suppress(OSError):  # only root may, or the thread has ended
            os.setpriority(os.PRIO_PROCESS, thread.native_id, 0)
