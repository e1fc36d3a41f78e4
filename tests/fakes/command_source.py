"""A driver's side of the slot protocol that follows a script."""

from __future__ import annotations

from collections.abc import Sequence

from spectune.trainers.worker.messages import SlotCommand


class ScriptedCommands:
    """Gives the commands of a list, one per report number.

    Attributes:
        asked: The report numbers that a slot asked for, in order.
        stopping: What `is_stopping` answers.
    """

    def __init__(self, commands: Sequence[SlotCommand]) -> None:
        self._commands = list(commands)
        self.asked: list[int] = []
        self.stopping = False

    def command(self, slot: str, number: int) -> SlotCommand:
        self.asked.append(number)
        return self._commands[number]

    def is_stopping(self) -> bool:
        return self.stopping
