"""The command board: an actor beside the driver where slots wait for what to do next.

The board does not read what it keeps. Commands pass through it as bytes, so that its process needs no torch: that would
be a second of a processor while the slots start, and 250 MB for as long as the campaign lasts.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class CommandBoard:
    """Pickled commands by slot and number; written once, kept, and waited for."""

    def __init__(self) -> None:
        self._commands: dict[tuple[str, int], bytes] = {}
        self._changed = asyncio.Condition()
        self._stopping = False

    async def post(self, slot: str, number: int, command: bytes) -> None:
        """Give the command on a slot's report; the one before the last is forgotten."""
        async with self._changed:
            self._commands[slot, number] = command
            self._commands.pop((slot, number - 2), None)
            self._changed.notify_all()

    async def command(self, slot: str, number: int) -> bytes:
        """Wait for the command on a report; asking again gives the same answer."""
        async with self._changed:
            await self._changed.wait_for(lambda: (slot, number) in self._commands)
            return self._commands[slot, number]

    async def stop(self) -> None:
        """Ask every slot to interrupt its stretch."""
        self._stopping = True

    async def is_stopping(self) -> bool:
        """Return whether slots should interrupt their stretch."""
        return self._stopping


def start_board() -> Any:
    """Start the board on the driver's own node: losing it means losing the driver."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(num_cpus=0, max_concurrency=10_000)(CommandBoard)
    return board.options(scheduling_strategy=here).remote()
