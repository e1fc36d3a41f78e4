"""Which trial enters a slot next: the first that waits of the arm that was served least, or a new point of it.

Of an arm, trials that wait (they lost their worker, or are further seeds of a drawn point) come before new points, the
lowest number first, since others may wait for it at a rung. A trial whose code failed in a slot does not enter that
slot again, for the worker may be to blame. `SlotCapacity` decides how many trials fit into a slot, and `Turns` whose
turn it is among those inside.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from spectune.service.driver.arm_trial import ArmTrial
from spectune.service.driver.arms import Arm
from spectune.service.driver.decision import SlotState
from spectune.service.driver.slot_capacity import SlotCapacity

HEAD_START_SECONDS = 2.0  # an arm in a slot comes before others until it is so far ahead: larger cohorts are faster

Crowd: TypeAlias = Mapping[tuple[int, int], int]  # how many members a slot has, by arm and workers lost under them


class TrialQueue:
    """The trials that wait and the arms that draw new ones.

    Args:
        arms: The campaign's.
        lanes: How many trials fit into a slot.
        slots: All that are open, by name; the scheduler's own.
        head_start_seconds: How far ahead an arm in a slot may be and still come before others.

    Attributes:
        waiting: PENDING trials by number.
    """

    def __init__(
        self, arms: Sequence[Arm], lanes: SlotCapacity, slots: Mapping[str, SlotState], *, head_start_seconds: float
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
            return all(trial.excluded_slot == slot.name for trial in self.waiting)
        return not any(arm.may_draw() for arm in self._arms)

    def fair_share(self) -> int:
        """Return the members of a slot where all of them have equally many: none starves while another is filled."""
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
        awaited = self._awaited(slot)
        if awaited is not None:
            return self._called(awaited), []
        crowd = Counter((trial.arm.index, trial.num_losses) for trial in slot.members.values())
        for arm in self._arms_by_need(slot):
            waiting = next((each for each in self.waiting if each.arm is arm and each.excluded_slot != slot.name), None)
            num_losses = 0 if waiting is None else waiting.num_losses
            if not self._has_lane(crowd, arm.index, num_losses) or not self._may_try(slot, arm):
                continue
            has_room = self._has_room(crowd, arm.index, num_losses)
            has_room &= not crowd or len(slot.members) < share or self._is_left_out(slot, arm)
            if waiting is not None:  # without room for it nobody enters: others would take what it waits for
                return (self._called(waiting) if has_room else None), []
            drawn = arm.draw() if has_room else []
            if drawn:
                for trial in drawn[1:]:
                    self.wait(trial)
                return drawn[0], drawn
        return None, []

    def _called(self, trial: ArmTrial) -> ArmTrial:
        self.waiting.remove(trial)
        return trial

    def _has_lane(self, crowd: Crowd, arm: int, num_losses: int) -> bool:
        """Return whether a slot has a lane for a trial of an arm."""
        mine = [(losses, number) for (index, losses), number in crowd.items() if index == arm]
        taken = sum(number * self._lanes.lanes_of(arm, losses) for losses, number in mine)
        return not mine or taken + self._lanes.lanes_of(arm, num_losses) <= 1.0 + 1e-9

    def _has_room(self, crowd: Crowd, arm: int, num_losses: int) -> bool:
        """Return whether a slot has room for a trial of an arm beside those of all arms."""
        taken = sum(number * self._lanes.part_of(*each) for each, number in crowd.items())
        return not crowd or taken + self._lanes.part_of(arm, num_losses) <= 1.0 + 1e-9

    def _may_try(self, slot: SlotState, arm: Arm) -> bool:
        """Return whether an arm may enter; one whose K is unknown enters alone, and one slot while others have work.

        Finding K out takes seconds, for which all that trains in a slot would wait.
        """
        if slot.entering and not self._lanes.is_known(slot.entering[0].arm.index):
            return False
        if self._lanes.is_known(arm.index) or not slot.members:
            return True
        others = (each for each in self._slots.values() if each is not slot)
        return not slot.entering and not any(trial.arm is arm for each in others for trial in each.members.values())

    def _is_left_out(self, slot: SlotState, arm: Arm) -> bool:
        """Whether an arm is in no slot and behind all arms of this one: the slots it waits for may never open."""
        ahead = min(self._arms[index].device_seconds for index in slot.arms) - self._head_start_seconds
        return arm.device_seconds < ahead and not self._num_active()[arm.index]

    def _num_active(self) -> Counter[int]:
        """Count each arm's members in all slots."""
        return Counter(trial.arm.index for each in self._slots.values() for trial in each.members.values())

    def _awaited(self, slot: SlotState) -> ArmTrial | None:
        """Find a trial for which all members of its arm in a slot may be waiting: it enters, or none would go on."""
        if not slot.held or not self.waiting:
            return None
        busy = {trial.arm.index for number, trial in slot.members.items() if number not in slot.held}
        last = {slot.members[number].arm.index: number for number in sorted(slot.held)}
        stuck = (each for each in self.waiting if each.arm.index not in busy)
        return next((each for each in stuck if each.number < last.get(each.arm.index, 0)), None)

    def _arms_by_need(self, slot: SlotState) -> list[Arm]:
        """List the arms: those to be tried out, then the least served, but first those inside that are hardly ahead."""
        if len(self._arms) == 1:
            return list(self._arms)
        present, active = slot.arms, self._num_active()

        def need(arm: Arm) -> tuple[bool, float, int, int]:
            head_start = self._head_start_seconds if arm.index in present else 0.0
            is_known = self._lanes.is_known(arm.index)
            return is_known, arm.device_seconds - head_start, active[arm.index], arm.index

        return sorted(self._arms, key=need)
