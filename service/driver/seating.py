"""Which trial enters a slot next: the first that waits of the arm that was served least, or a new point of it.

Of an arm, trials that wait (they lost their worker, or are further seeds of a drawn point) come before new points, the
lowest number first, since others may wait for it at a rung. A trial whose code failed in a slot does not enter that
slot again, for the worker may be to blame. How many trials fit into a slot is `Lanes`' business, and whose turn it is
among those inside that of `Turns`.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence

from service.driver.arm_trial import ArmTrial
from service.driver.arms import Arm
from service.driver.decision import SlotState
from service.driver.lanes import Lanes

HEAD_START_SECONDS = 2.0  # an arm in a slot comes before others until it is so far ahead: larger cohorts are faster


class Seating:
    """The trials that wait and the arms that draw new ones.

    Args:
        arms: The campaign's.
        lanes: How many trials fit into a slot.
        slots: All that are open, by name; the dispatcher's own.
        head_start_seconds: How far ahead an arm in a slot may be and still come before others.

    Attributes:
        waiting: PENDING trials by number.
    """

    def __init__(
        self, arms: Sequence[Arm], lanes: Lanes, slots: Mapping[str, SlotState], *, head_start_seconds: float
    ) -> None:
        self._arms = arms
        self._lanes = lanes
        self._slots = slots
        self._head_start_seconds = head_start_seconds
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
        for arm in self._arms_by_need(slot):
            waiting = next((each for each in self.waiting if each.arm is arm and each.shuns != slot.name), None)
            if not self._has_lanes(slot, arm, waiting) or not self._may_try(slot, arm):
                continue
            if waiting is not None:  # without room for it nobody enters: others would take what it waits for
                has_room = self._has_room(slot, arm, share, self._lanes.part_of(waiting))
                return (self._called(waiting) if has_room else None), []
            drawn = arm.draw() if self._has_room(slot, arm, share, self._lanes.part_of_new(arm.index)) else []
            if drawn:
                for trial in drawn[1:]:
                    self.wait(trial)
                return drawn[0], drawn
        return None, []

    def _called(self, trial: ArmTrial) -> ArmTrial:
        self.waiting.remove(trial)
        return trial

    def _has_lanes(self, slot: SlotState, arm: Arm, waiting: ArmTrial | None) -> bool:
        """Tell whether a slot has a lane for an arm's next trial."""
        mine = [trial for trial in slot.members.values() if trial.arm is arm]
        wanted = self._lanes.lanes_of_new(arm.index) if waiting is None else self._lanes.lanes_of(waiting)
        return not mine or sum(map(self._lanes.lanes_of, mine)) + wanted <= 1.0 + 1e-9

    def _may_try(self, slot: SlotState, arm: Arm) -> bool:
        """Tell whether an arm may enter; one whose K is unknown does so alone, and in one slot while others have work.

        Finding K out takes seconds, for which all that trains in a slot would wait.
        """
        if any(not self._lanes.is_known(trial.arm.index) for trial in slot.entering):
            return False
        if self._lanes.is_known(arm.index) or not slot.members:
            return True
        others = (each for each in self._slots.values() if each is not slot)
        return not slot.entering and not any(trial.arm is arm for each in others for trial in each.members.values())

    def _has_room(self, slot: SlotState, arm: Arm, share: int, part: float) -> bool:
        """Tell whether a slot has room for a trial of an arm, which takes this part of it."""
        if not slot.members:
            return True
        occupied = sum(self._lanes.part_of(trial) for trial in slot.members.values())
        return (len(slot.members) < share or self._is_left_out(slot, arm)) and occupied + part <= 1.0 + 1e-9

    def _is_left_out(self, slot: SlotState, arm: Arm) -> bool:
        """Whether an arm is in no slot and behind all arms of this one: the slots it waits for may never open."""
        ahead = min(self._arms[index].device_seconds for index in slot.arms) - self._head_start_seconds
        return arm.device_seconds < ahead and not self._num_active()[arm.index]

    def _num_active(self) -> Counter[int]:
        """Count each arm's members in all slots."""
        return Counter(trial.arm.index for each in self._slots.values() for trial in each.members.values())

    @staticmethod
    def _is_awaited(slot: SlotState, trial: ArmTrial) -> bool:
        """Whether its arm's members in a slot may all be waiting for it: then it enters, or none would ever go on."""
        mine = {number for number, each in slot.members.items() if each.arm is trial.arm}
        return mine <= slot.held and trial.number < max(mine, default=0)

    def _arms_by_need(self, slot: SlotState) -> list[Arm]:
        """List the arms: those to be tried out, then the least served, but first those inside that are hardly ahead."""
        present, active = slot.arms, self._num_active()

        def need(arm: Arm) -> tuple[bool, float, int, int]:
            head_start = self._head_start_seconds if arm.index in present else 0.0
            is_known = self._lanes.is_known(arm.index)
            return is_known, arm.device_seconds - head_start, active[arm.index], arm.index

        return sorted(self._arms, key=need)
