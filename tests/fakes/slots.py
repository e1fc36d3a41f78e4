"""Slots without processes: they train nothing, report what a function says, and can be lost at any moment."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spectune.service.campaign.ending.budget import SpendingLimit
from spectune.service.campaign.specification.specification import Specification, parse
from spectune.service.driver.arms import make_arms
from spectune.service.driver.assignments import AssignmentMaker
from spectune.service.driver.decision import Decision
from spectune.service.driver.scheduler import Scheduler
from spectune.service.driver.slot_capacity import SlotCapacity
from spectune.service.driver.stop_kinds import StopKind
from spectune.service.ledger.spool import Record
from spectune.trainers.engines.fused_step_check import FusionCheck
from spectune.trainers.engines.plan import Plan
from spectune.trainers.worker.messages import Assignment, MemberReport, SlotCommand, SlotReport, TrialEnding

STEPS = 90


def specification(**changes: Any) -> Specification:
    """Make a small campaign of two arms; `changes` replace whole sections."""
    document = {
        "name": "simulated",
        "task": {"name": "matrix_completion", "rows": 8, "columns": 6, "rank": 1, "steps": STEPS},
        "objective": {"metric": "validation_loss", "mode": "minimize", "every_steps": 30},
        "arms": [{"optimizer": "muon", "space": "default"}, {"optimizer": "adamw", "space": "default"}],
        "search": {"sampler": "random", "points": 9},
        "stopping": {"rule": "successive_halving", "min_steps": 30, "reduction_factor": 3},
        "schedule": {"shape": "constant"},
        "resources": {"workers": 3},
    }
    return parse(document | changes)


def objective(trial: int, step: int) -> float:
    """Rank every trial the same at each step; every seventh diverges late."""
    if trial % 7 == 6 and step == STEPS:
        return math.nan
    return 1.0 + (trial * 37 % 101) / 101


@dataclass
class _Slot:
    number: int = 0
    command: SlotCommand | None = None
    assignments: dict[int, Assignment] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)


@dataclass
class Simulation:
    """Runs a scheduler against slots in an order that a seed decides.

    Attributes:
        records: Everything that was decided, in order.
        assigned: Numbers of trials as they were assigned, in order.
        value: The objective of a trial at a step.
        members: K, None to let the first slot find `planned` out.
        culprit: A trial under which every worker is lost.
        largest: The most members that any slot had.
        check: What comes of every comparison of a fused step with the step alone; None where none is made.
        silent: A trial whose task forgets the objective at its second report.
        faults: What the code of a trial says in a slot when it raises there; empty where it does not.
        place: The machine of a slot.
        wall_seconds: What the campaign's clock shows beside half a second for each slot's report.
        checkpoint_rate: How often a slot writes a checkpoint of its members after a command that does not ask for one.
        checkpoints: The step of each trial's latest checkpoint; a later simulation may be given them.
        cost: The device seconds of a cohort's report, from its arm and how many of its members train.
        after_report: Called after each report that the scheduler took, and what it then decided.
        arms: The campaign's, as the scheduler has them.
    """

    specification: Specification
    seed: int = 0
    loss_rate: float = 0.0
    records: list[Record] = field(default_factory=list)
    assigned: list[int] = field(default_factory=list)
    value: Callable[[int, int], float] = objective
    members: int | None = 1
    planned: int = 4
    culprit: int | None = None
    largest: int = 0
    check: FusionCheck | None = None
    silent: int | None = None
    faults: Callable[[str, int], str] = lambda slot, trial: ""
    place: Callable[[str], str] = lambda slot: ""
    wall_seconds: float = 0.0
    checkpoint_rate: float = 0.0
    checkpoints: dict[int, int] = field(default_factory=dict)
    cost: Callable[[int, int], float] = lambda arm, num_members: float(num_members)
    after_report: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.arms = arms = make_arms(self.specification)
        lanes = SlotCapacity(arms, members=self.members, num_slots=self.specification.resources.workers)
        maker = AssignmentMaker(self.specification)
        self.scheduler = Scheduler(
            arms,
            lanes=lanes,
            assignment=maker.assignment,
            now=lambda: 0,
            limit=SpendingLimit(self.specification, wall_seconds=self._wall_seconds),
            shares_seconds=self.specification.budget.is_in_seconds,
        )
        self._random = random.Random(self.seed)
        self._diligence = random.Random(self.seed)  # of slots that write checkpoints
        self._slots: dict[str, _Slot] = {}
        self._arm_of: dict[int, int] = {}
        self._num_opened = 0
        self.num_reports = 0

    def run(self, *, stop_after: int | None = None, kind: StopKind = StopKind.CANCEL, max_rounds: int = 10_000) -> None:
        """Run until the scheduler is over; `stop_after` asks it to stop after so many reports."""
        for _ in range(max_rounds):
            self._open_slots()
            if self.scheduler.is_over():
                return
            able = [name for name, slot in self._slots.items() if slot.command is not None]
            assert able, "no slot can go on: the scheduler is stuck"
            name = self._random.choice(able)
            if self._random.random() < self.loss_rate or self._holds_culprit(self._slots[name]):
                del self._slots[name]
                self._carry_out(self.scheduler.lose(name, "killed"))
            else:
                self.num_reports += self._go_on(name)
            if self.num_reports == stop_after:
                self._carry_out(self.scheduler.stop(kind))
                stop_after = None
        raise AssertionError(f"the scheduler was not over after {max_rounds} rounds")

    def observed(self) -> list[tuple[int, int]]:
        """List (trial, step) of every observation that was decided."""
        return [(each["trial"], each["step"]) for each in self.records if each["kind"] == "observation"]

    def final_states(self) -> dict[int, str]:
        """Return each trial's last state."""
        states = {each["trial"]: "PENDING" for each in self.records if each["kind"] == "trial_created"}
        for each in self.records:
            if each["kind"] == "trial_moved":
                states[each["trial"]] = each["state"]
            elif each["kind"] == "trial_lost":
                states[each["trial"]] = "PENDING"
        return states

    def num_members(self, slot: str) -> int:
        """Count the members of a slot."""
        return len(self._slots[slot].assignments)

    def num_arms(self, slot: str) -> int:
        """Count the arms that have members in a slot."""
        return len({self.arm_of(trial) for trial in self._slots[slot].assignments})

    def _open_slots(self) -> None:
        workers = self.specification.resources.workers
        while len(self._slots) < min(workers, self.scheduler.num_slots_wanted()):
            name = f"slot-{self._num_opened}"
            self._num_opened += 1
            self._slots[name] = _Slot()
            self._carry_out(self.scheduler.open_slot(name, self.place(name)))

    def _carry_out(self, decision: Decision) -> None:
        self.records += decision.records
        for name, number, command in decision.commands:
            slot = self._slots[name]
            assert slot.number == number, f"a command on report {number} while {slot.number} waits"
            assert slot.command is None, "a second command on the same report"
            slot.command = command
            self.assigned += [assignment.trial for assignment in command.admit]

    def _wall_seconds(self) -> float:
        return self.wall_seconds + 0.5 * self.num_reports

    def _holds_culprit(self, slot: _Slot) -> bool:
        admitted = [each.trial for each in slot.command.admit] if slot.command is not None else []
        return self.culprit is not None and self.culprit in [*slot.assignments, *admitted]

    def _go_on(self, name: str) -> int:
        """Let a slot follow its command; tell how many reports it made."""
        slot = self._slots[name]
        command, slot.command = slot.command, None
        assert command is not None
        for trial in command.evict:
            slot.assignments.pop(trial, None)
        if command.checkpoint or self._diligence.random() < self.checkpoint_rate:
            self.checkpoints |= {trial: slot.steps[trial] for trial in slot.assignments}
        if command.finish:
            del self._slots[name]
            self.scheduler.close_slot(name)
            return 0
        for assignment in command.admit:
            assert assignment.trial not in slot.assignments, "a member was admitted twice"
            slot.assignments[assignment.trial] = assignment
            slot.steps[assignment.trial] = 0 if assignment.is_new else self.checkpoints.get(assignment.trial, 0)
        self.largest = max(self.largest, len(slot.assignments))
        slot.number += 1
        training = [each for each in slot.assignments.values() if each.trial not in command.hold]
        assert training or command.admit, "a slot without work was told to go on"
        plans = {each.trial: Plan(self.planned, "as the test says") for each in command.admit if command.plan_for}
        sizes = Counter(self.arm_of(each.trial) for each in training)
        members = [self._train(name, slot, assignment, sizes) for assignment in training]
        checks = {members[0].trial: self.check} if self.check is not None and len(members) > 1 else {}
        self._carry_out(self.scheduler.take(name, SlotReport(slot.number, members, plans, checks)))
        self.after_report()
        return 1

    def arm_of(self, trial: int) -> int:
        """Tell the arm of a trial, which is a cohort of its own in a slot."""
        if trial not in self._arm_of:
            self._arm_of |= {each.number: arm.index for arm in self.arms for each in arm.unfinished()}
        return self._arm_of[trial]

    def _train(self, name: str, slot: _Slot, assignment: Assignment, sizes: Mapping[int, int]) -> MemberReport:
        trial, size = assignment.trial, sizes[self.arm_of(assignment.trial)]
        seconds = self.cost(self.arm_of(trial), size) / size
        if fault := self.faults(name, trial):
            ending = TrialEnding.LOST if size > 1 else TrialEnding.FAILED
            return MemberReport(trial, slot.steps[trial], ending, {}, fault, seconds, 0)
        if self.scheduler.is_stopping:
            return MemberReport(trial, slot.steps[trial], TrialEnding.INTERRUPTED, {}, "", seconds, 0)
        slot.steps[trial] = next(step for step in assignment.report_steps if step > slot.steps[trial])
        value = self.value(trial, slot.steps[trial])
        ending = TrialEnding.REACHED if math.isfinite(value) else TrialEnding.DIVERGED
        forgets = trial == self.silent and slot.steps[trial] > 30
        metrics = {"loss": value} if forgets else {"validation_loss": value}
        return MemberReport(trial, slot.steps[trial], ending, metrics, "", seconds, 0)
