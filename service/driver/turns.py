"""Which arms of a slot train next: those that have used the least device time, so that arms advance side by side.

A slot holds members of several arms; those whose turn it is not are held until the next report, in memory and at no
cost. Arms take turns by the stretch from one report to the next, the least served first:

    repeat   a = the arm with the least projected seconds;  stop if it has its turn already
             a trains;  projected seconds of a += the least that its members' stretch can cost

A stretch must not be expected to cost more than it will: half of the least that as many members have cost before, or
fewer, or the part of what more have. So an arm trains beside another only if it would have been the least served after
that one, too, or is hardly ahead: the way to the driver and back takes longer than a stretch of a tiny problem. Hence
two arms with work in one slot never differ by more than one report of a cohort and that slack.

Slots cannot interrupt each other. With several of them an arm counts as having used what its stretches under way are
expected to cost. If the campaign may use only so many seconds, a slot waits while an arm that trains elsewhere is more
than a report behind all arms that it has itself; in any other campaign a slot with work never waits for that.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from spectune.service.driver.arms import Arm
from spectune.service.driver.assignments import MakeAssignment
from spectune.service.driver.decision import SlotState
from spectune.service.driver.slot_capacity import SlotCapacity
from spectune.trainers.worker.messages import SlotCommand, SlotReport

CAUTION = 0.5  # a machine that others use as well takes twice as long at times, the first report among them
SLACK_SECONDS = 0.1  # what is less apart trains side by side


class Turns:
    """Whose turn it is in each slot.

    Args:
        arms: The campaign's.
        slots: All that are open, by name; the scheduler's own.
        lanes: How many trials fit into a slot.
        assignment: Makes the assignment of a trial.
        waits: Whether a slot waits until arms elsewhere have caught up.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        slots: Mapping[str, SlotState],
        lanes: SlotCapacity,
        *,
        assignment: MakeAssignment,
        waits: bool,
    ) -> None:
        self._arms = {arm.index: arm for arm in arms}
        self._slots = slots
        self._lanes = lanes
        self._assignment = assignment
        self._waits = waits and len(arms) > 1
        self._costs: defaultdict[int, dict[int, float]] = defaultdict(dict)  # the least, by arm and number of members
        self._most_seconds = 0.0  # the most that a cohort's report has cost

    def enter(self, slot: SlotState, report: SlotReport) -> None:
        """Learn from a report what a turn of each arm costs; its members are still in the slot."""
        slot.under_way = {}
        seconds: defaultdict[int, list[float]] = defaultdict(list)
        for member in report.members:
            if member.metrics:
                seconds[slot.members[member.trial].arm.index].append(member.seconds)
        for arm, costs in seconds.items():
            known = self._costs[arm]
            known[len(costs)] = min(sum(costs), known.get(len(costs), sum(costs)))
            self._most_seconds = max(self._most_seconds, sum(costs))

    def command(self, slot: SlotState) -> SlotCommand | None:
        """Make the command by which a slot goes on; None while arms elsewhere are behind all of its own."""
        projected = self._projected()
        able = _able(slot)
        turn = self._turn(able, projected, self._latest(projected))
        if able and not turn:
            return None
        slot.under_way = turn
        admitted, slot.entering = slot.entering, []
        idle = {number for number, trial in slot.members.items() if trial.arm.index not in slot.under_way}
        command = SlotCommand(
            admit=tuple(self._assignment(each, is_alone=self._lanes.fills_its_lanes(each)) for each in admitted),
            hold=tuple(sorted(slot.held | idle)),
            plan_for=max((self._lanes.plan_for(trial) for trial in admitted), default=0),
        )
        for trial in admitted:
            trial.is_new = False
        return command

    def _projected(self) -> dict[int, float]:
        """Add up the seconds of each arm, with those of the stretches that are under way."""
        projected = {index: arm.device_seconds for index, arm in self._arms.items()}
        for slot in self._slots.values():
            for arm, seconds in slot.under_way.items():
                projected[arm] += seconds
        return projected

    def _latest(self, projected: Mapping[int, float]) -> float:
        """Return how many seconds an arm may have used at most to train: a report more than any that could train."""
        if not self._waits:
            return math.inf
        able: set[int] = set()
        for slot in self._slots.values():  # of one under way nobody knows yet who is still held when it reports
            able |= slot.arms if slot.waits_for is None else set(_able(slot))
        return min((projected[arm] for arm in able), default=0.0) + self._most_seconds

    def _turn(self, able: Mapping[int, int], projected: dict[int, float], latest: float) -> dict[int, float]:
        """Choose the arms of a slot that train now, each with what its stretch costs at least."""
        turn: dict[int, float] = {}
        close = {arm for arm in able if projected[arm] <= min(projected[each] for each in able) + SLACK_SECONDS}
        while able:
            arm = min(able, key=lambda index: (projected[index], index))
            if arm in turn or projected[arm] > latest:
                break
            turn[arm] = self._least_cost(arm, able[arm])
            projected[arm] += CAUTION * turn[arm]
        if turn:
            turn |= {arm: self._least_cost(arm, able[arm]) for arm in close - turn.keys()}
        return turn

    def _least_cost(self, arm: int, num_members: int) -> float:
        """Return what a stretch of so many members costs at least, by those before: 0 without any."""
        known = self._costs[arm]
        if num_members in known:
            return known[num_members]
        return max((cost * min(1.0, num_members / number) for number, cost in known.items()), default=0.0)


def _able(slot: SlotState) -> Counter[int]:
    """Count the members of each arm that could train in a slot."""
    return Counter(trial.arm.index for number, trial in slot.members.items() if number not in slot.held)
