"""Ctrl-C as a question that the main loop asks, so that nothing is torn in its middle."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Counts SIGINT and SIGTERM while it is entered."""

    def __init__(self) -> None:
        self._untaken = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._count) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def take(self) -> bool:
        """Return whether there was an interrupt that was not taken yet, and take it."""
        if self._untaken == 0:
            return False
        self._untaken -= 1
        return True

    def _count(self, _: int, __: FrameType | None) -> None:
        self._untaken += 1
