"""How many trials fit into a slot: K of each arm, K what its trials are best trained in together, of so many arms.

K is what the user wrote or, with `members: auto`, what the first worker finds out by measuring; until then it is one.
Arms take turns in a slot (`turns.py`), so each has lanes of its own there: a trial takes 1/K of its arm's lanes, and
1 / (K * number of arms) of the slot. A trial that has lost workers takes four times as much for each of them, so that
one which takes its worker down is soon alone, and fails alone. If memory was lacking, or workers die again and again,
the number of arms that share a slot is halved for good, and for a slot of one arm its K.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from spectune.service.driver.arm_trial import ArmTrial
from spectune.service.driver.arms import Arm

MOST_MEMBERS: Final = 256
"""More gains nothing measurable: one step of a cohort of 256 takes long beside what it costs to start it."""
LOSS_FACTOR: Final = 4
MAX_DEATHS: Final = 3
"""Of workers under several trials of an arm: the kernel ends a process that takes too much memory without a word."""


class SlotCapacity:
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
        self._num_deaths: Counter[int] = Counter()
        self._num_arms = len(arms)  # at most so many share a slot
        self._num_shared_deaths = 0
        for arm, most in self._most.items():
            if members is not None or most == 1:
                self._known[arm] = 1 if members is None else members

    def learn(self, arm: int, num_members: int) -> None:
        """Enter a K that was found out; what is known already stays."""
        self._known.setdefault(arm, min(num_members, self._most[arm]))

    def bound(self, arm: int, num_members: int) -> None:
        """Never train more of an arm together than these: more did not fit."""
        self._most[arm] = min(self._most[arm], num_members)
        if arm in self._known:
            self._known[arm] = min(self._known[arm], num_members)

    def lose(self, trials: Sequence[ArmTrial], *, is_out_of_memory: bool) -> dict[int, int]:
        """Enter that trials lost their worker together; give the new K of each arm that is halved for it."""
        halved = {}
        for arm, number in Counter(trial.arm.index for trial in trials).items():
            self._num_deaths[arm] += number > 1
            if number > 1 and (is_out_of_memory or self._num_deaths[arm] >= MAX_DEATHS):
                self._num_deaths[arm] = 0
                halved[arm] = number // 2
                self.bound(arm, number // 2)
        return halved

    def part_arms(self, *, is_out_of_memory: bool) -> None:
        """Enter that a slot of several arms lost its worker, or memory: fewer may share one if that goes on."""
        self._num_shared_deaths += 1
        if is_out_of_memory or self._num_shared_deaths >= MAX_DEATHS:
            self._num_shared_deaths = 0
            self._num_arms = max(1, self._num_arms // 2)

    def distrust(self, arm: int) -> None:
        """Train every further trial of an arm alone: its fused steps are not those of a trial alone."""
        self._known[arm] = 1

    def plan_for(self, trial: ArmTrial) -> int:
        """Return the largest K worth trying out with a trial; 0 where its arm's K is known."""
        arm = trial.arm.index
        return 0 if arm in self._known else max(1, self._most[arm] // LOSS_FACTOR**trial.num_losses)

    def is_known(self, arm: int) -> bool:
        """Whether the K of an arm has been found out."""
        return arm in self._known

    def lanes_of(self, arm: int, num_losses: int = 0) -> float:
        """Return the part of its arm's lanes in a slot that a trial takes which has lost so many workers."""
        return min(1.0, float(LOSS_FACTOR**num_losses) / self._known.get(arm, 1))

    def part_of(self, arm: int, num_losses: int = 0) -> float:
        """Return the part of a slot that a trial takes which has lost so many workers."""
        return min(1.0, float(LOSS_FACTOR**num_losses) / (self._known.get(arm, 1) * self._num_arms))

    def fills_its_lanes(self, trial: ArmTrial) -> bool:
        """Whether a trial is the only one of its arm wherever it is."""
        return self.lanes_of(trial.arm.index, trial.num_losses) >= 1.0

    def fills_a_slot(self, trial: ArmTrial) -> bool:
        """Whether a trial is alone wherever it is."""
        return self.part_of(trial.arm.index, trial.num_losses) >= 1.0
