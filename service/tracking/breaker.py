"""Leaves a tracker alone for a while after it has failed: twice as long after each failure in a row, up to a bound.

Nothing waits in here. Libraries that retry block their caller until the call succeeds; a projection has nothing to wait
for, it only must not knock at a dead door every second, and not let a slow one hold its thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from spectune.service.back_off import back_off_seconds

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 30.0


class Breaker:
    """Says whether it is time to try again.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_failures = 0
        self._closed_at = 0.0

    def is_open(self) -> bool:
        """Return whether to leave the tracker alone."""
        return self._num_failures > 0 and self._clock() < self._closed_at

    def succeed(self) -> None:
        """Forget the failures."""
        self._num_failures = 0

    def fail(self) -> float:
        """Note a failure.

        Returns:
            Seconds for which the tracker is left alone.
        """
        wait_seconds = back_off_seconds(self._num_failures, first=FIRST_SECONDS, longest=LONGEST_SECONDS)
        self._num_failures += 1
        self._closed_at = self._clock() + wait_seconds
        return wait_seconds
