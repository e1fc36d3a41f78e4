"""Stops: what they mean, and where they wait while there is nobody to hear them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Generic, TypeVar

Hearer = TypeVar("Hearer")


class StopKind(StrEnum):
    """What a stop means for the trials that are not done."""

    CANCEL = "cancel"  # they are cancelled
    PAUSE = "pause"  # they wait for the next attempt
    LIMIT = "limit"  # they are cancelled: a budget is spent or the target is reached


class StopRequests(Generic[Hearer]):
    """Stops that signals or a lost owner ask for; those that come before the attempt is there wait for it."""

    def __init__(self) -> None:
        self._hearer: Hearer | None = None
        self._waiting: list[Callable[[Hearer], None]] = []

    def ask(self, stop: Callable[[Hearer], None]) -> None:
        """Ask for a stop; from a signal handler or any thread."""
        if self._hearer is None:
            self._waiting.append(stop)
        else:
            stop(self._hearer)

    def reach(self, hearer: Hearer) -> None:
        """Let somebody hear every stop, those before now first; hearing one twice must be harmless."""
        self._hearer = hearer
        for stop in self._waiting:
            stop(hearer)
