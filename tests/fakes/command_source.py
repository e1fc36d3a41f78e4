"""A driver's side of the slot protocol that follows a script."""

from __future__ import annotations

from collections.abc import Sequence

from spectune.trainers.worker.messages import SlotCommand


class ScriptedCommands:
    """Gives the verdicts of a list, one per report number.

    Attributes:
        asked: The report numbers that a slot asked for, in order.
        stopping: What `is_stopping` answers.
    """

    def __init__(self, verdicts: Sequence[SlotCommand]) -> None:
        self._verdicts = list(verdicts)
        self.asked: list[int] = []
        self.stopping = False

    def verdict(self, slot: str, number: int) -> SlotCommand:
        self.asked.append(number)
        return self._verdicts[number]

    def is_stopping(self) -> bool:
        return self.stopping
