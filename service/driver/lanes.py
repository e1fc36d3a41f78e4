"""How many trials fit into a slot: each of an arm's takes 1/K of it, K what its trials are best trained in together.

K is what the user wrote or, with `members: auto`, what the first worker finds out by measuring; until then a trial of
the arm takes the whole slot. A trial that has lost workers takes four times as much for each of them, so that one which
takes its worker down is soon alone, and fails alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from service.driver.arms import Arm, ArmTrial

MOST_MEMBERS: Final = 256
"""More gains nothing measurable: one step of a cohort of 256 takes long beside what it costs to start it."""
LOSS_FACTOR: Final = 4


class Lanes:
    """What is known about each arm's K.

    Args:
        arms: The campaign's.
        members: K as the user wrote it; None to find it out.
        num_slots: At most so many slots at a time.

    Attributes:
        num_slots: As given.
    """

    def __init__(self, arms: Sequence[Arm], *, members: int | None, num_slots: int) -> None:
        self.num_slots = num_slots
        self._most = {arm.index: min(MOST_MEMBERS, -(-arm.most_at_once() // num_slots)) for arm in arms}
        self._known: dict[int, int] = {}
        for arm, most in self._most.items():
            if members is not None or most == 1:
                self._known[arm] = 1 if members is None else members

    def learn(self, arm: int, num_members: int) -> None:
        """Enter a K that was found out; what is known already stays."""
        self._known.setdefault(arm, num_members)

    def distrust(self, arm: int) -> None:
        """Train every further trial of an arm alone: its fused steps are not those of a trial alone."""
        self._known[arm] = 1

    def plan_for(self, trial: ArmTrial) -> int:
        """Give the largest K worth trying out with a trial; 0 where its arm's K is known."""
        arm = trial.arm.index
        return 0 if arm in self._known else max(1, self._most[arm] // LOSS_FACTOR**trial.num_losses)

    def part_of(self, trial: ArmTrial) -> float:
        """Give the part of a slot that a trial takes."""
        return float(min(1.0, self.part_of_new(trial.arm.index) * LOSS_FACTOR**trial.num_losses))

    def part_of_new(self, arm: int) -> float:
        """Give the part of a slot that a new trial of an arm takes."""
        return 1.0 / self._known.get(arm, 1)

    def fills_a_slot(self, trial: ArmTrial) -> bool:
        """Whether a trial is alone wherever it is."""
        return self.part_of(trial) >= 1.0
