"""Checks of what the service can do without for a while, asked no more often than they can change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

FRESH_SECONDS = 2.0


class RecentAnswer:
    """A check whose answer is given again for two seconds; safe to share between threads.

    Callers that come while it is being asked wait for that answer, so that one that does not answer for a while holds
    up one question and not one of every caller.

    Args:
        probe: The check: gives None, or what is wrong.
        clock: Seconds that only grow.
    """

    def __init__(self, probe: Callable[[], str | None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._probe = probe
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at: float | None = None
        self._problem: str | None = None

    def __call__(self) -> str | None:
        """Return what is wrong, as of two seconds ago at most; None if nothing is."""
        with self._lock:
            now = self._clock()
            if self._asked_at is None or now - self._asked_at > FRESH_SECONDS:
                self._problem = self._probe()
                self._asked_at = now
            return self._problem
