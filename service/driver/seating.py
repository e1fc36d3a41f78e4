"""Which trial enters a slot next: the first of those that wait, or a new point of the arm that was served least.

Trials that wait (they lost their worker, or are further seeds of a drawn point) come before new points, the lowest
number first, since others may wait for it at a rung. A trial whose code failed in a slot does not enter that slot
again, for the worker may be to blame. How many trials fit into a slot is `Lanes`' business.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence

from service.driver.arm_trial import ArmTrial
from service.driver.arms import Arm
from service.driver.decision import SlotState
from service.driver.lanes import Lanes

HEAD_START_SECONDS = 2.0  # an arm keeps its lanes in a slot until it is so far ahead: cohorts of one arm are faster


class Seating:
    """The trials that wait and the arms that draw new ones.

    Args:
        arms: The campaign's.
        lanes: How many trials fit into a slot.
        slots: All that are open, by name; the dispatcher's own.

    Attributes:
        waiting: PENDING trials by number.
    """

    def __init__(self, arms: Sequence[Arm], lanes: Lanes, slots: Mapping[str, SlotState]) -> None:
        self._arms = arms
        self._lanes = lanes
        self._slots = slots
        self.waiting: list[ArmTrial] = []

    def wait(self, trial: ArmTrial) -> None:
        """Let a trial wait for a slot."""
        insort(self.waiting, trial, key=lambda each: each.number)

    def num_to_come(self) -> int:
        """Count the trials that a slot could get now."""
        return len(self.waiting) + sum(arm.num_drawable() for arm in self._arms)

    def will_nothing_come(self, slot: SlotState) -> bool:
        """Whether a slot without work may end: no trial that could still come would enter it."""
        if self.waiting:
            return all(trial.shuns == slot.name for trial in self.waiting)
        return not any(arm.may_draw() for arm in self._arms)

    def fair_share(self) -> int:
        """Give the members of a slot where all of them have equally many: none starves while another is filled."""
        num_in_slots = sum(len(slot.members) for slot in self._slots.values())
        return -(-(num_in_slots + self.num_to_come()) // self._lanes.num_slots)

    def next_for(self, slot: SlotState, share: int) -> tuple[ArmTrial | None, list[ArmTrial]]:
        """Take the trial that enters a slot next.

        Args:
            slot: Where it is to train.
            share: No more members than these, unless it is empty.

        Returns:
            The trial, None where none may enter, and the trials that were drawn for it, itself the first of them.
        """
        for place, trial in enumerate(self.waiting):
            if self._is_awaited(slot, trial):
                return self.waiting.pop(place), []
            if trial.shuns != slot.name:
                has_room = self._has_room(slot, share, self._lanes.part_of(trial))
                return (self.waiting.pop(place) if has_room else None), []
        for arm in self._arms_by_need(slot):
            drawn = arm.draw() if self._has_room(slot, share, self._lanes.part_of_new(arm.index)) else []
            if drawn:
                for trial in drawn[1:]:
                    self.wait(trial)
                return drawn[0], drawn
        return None, []

    def _has_room(self, slot: SlotState, share: int, part: float) -> bool:
        if not slot.members:
            return True
        occupied = sum(self._lanes.part_of(trial) for trial in slot.members.values())
        return len(slot.members) < share and occupied + part <= 1.0 + 1e-9

    @staticmethod
    def _is_awaited(slot: SlotState, trial: ArmTrial) -> bool:
        """Whether the whole slot may be waiting for this trial: then it enters, or nobody would ever go on."""
        return not slot.is_busy and trial.number < min(slot.held, default=0)

    def _arms_by_need(self, slot: SlotState) -> list[Arm]:
        """List the arms: the least served first, but those in the slot before others that are hardly behind them."""
        present = {trial.arm.index for trial in slot.members.values()}
        active = Counter(trial.arm.index for each in self._slots.values() for trial in each.members.values())

        def need(arm: Arm) -> tuple[float, int, int]:
            head_start = HEAD_START_SECONDS if arm.index in present else 0.0
            return arm.device_seconds - head_start, active[arm.index], arm.index

        return sorted(self._arms, key=need)
