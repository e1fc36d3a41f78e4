"""Whose fault a failure is: the trial's code, or the worker that ran it.

Code that raises is tried once more on another worker: a traceback that comes back there is the code's own, and final.
A worker on which failures cluster, so many reports in a row in which nobody reached a step and with tracebacks that no
other worker has seen, is retired and replaced. A machine on which workers die or are retired in a row, while another
machine's report, gets no further worker. Nothing of this outlasts the attempt: a new one trusts everybody.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

MAX_FAILURES = 3  # of one trial's code, each with another traceback
MAX_STRIKES = 3  # reports of a worker in a row that tell of failures alone
MAX_BAD_WORKERS = 5  # of one machine in a row
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")
_OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|MemoryError|out of memory|can't allocate memory|running low on memory", re.IGNORECASE
)


def is_out_of_memory(message: str) -> bool:
    """Return whether memory is what was lacking."""
    return _OUT_OF_MEMORY.search(message) is not None


class FaultPolicy:
    """What has failed in this attempt, of whom and where."""

    def __init__(self) -> None:
        self._tracebacks: dict[int, list[str]] = defaultdict(list)
        self._seen_by: dict[str, set[str]] = defaultdict(set)
        self._strikes: Counter[str] = Counter()
        self._bad_workers: Counter[str] = Counter()
        self._sound: set[str] = set()
        self._quarantined: set[str] = set()

    @property
    def quarantined(self) -> frozenset[str]:
        """The machines that get no worker."""
        return frozenset(self._quarantined)

    def is_final(self, trial: int, message: str) -> bool:
        """Enter that a trial's code has failed; tell whether that is its end."""
        before, traceback = self._tracebacks[trial], _shown(message)
        is_repeated = traceback in before
        before.append(traceback)
        return is_repeated or len(before) >= MAX_FAILURES

    def enter_report(self, slot: str, place: str, *, failures: Sequence[str], has_reached: bool) -> bool:
        """Enter what a worker's report tells of failures; tell whether the worker is to be retired."""
        if has_reached:
            self._strikes[slot] = self._bad_workers[place] = 0
            self._sound.add(place)
        shown = {_shown(message) for message in failures}
        for traceback in shown:
            self._seen_by[traceback].add(slot)
        if has_reached or not any(self._seen_by[traceback] == {slot} for traceback in shown):
            return False
        self._strikes[slot] += 1
        return self._strikes[slot] >= MAX_STRIKES

    def lose_worker(self, place: str) -> bool:
        """Enter that a worker died or was retired; tell whether its machine gets no further one."""
        self._bad_workers[place] += 1
        has_other = any(not self._bad_workers[other] for other in self._sound - self._quarantined - {place})
        if self._bad_workers[place] < MAX_BAD_WORKERS or not has_other or place in self._quarantined:
            return False
        self._quarantined.add(place)
        return True


def _shown(message: str) -> str:
    """Leave out of a traceback where objects happened to lie in memory."""
    return _ADDRESS.sub("0x", message)
