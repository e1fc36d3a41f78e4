"""Slots without processes: they train nothing, report what a function says, and can be lost at any moment."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.campaign.budget import SpendingLimit
from service.campaign.specification import Specification, parse
from service.data_directory import DataDirectory
from service.driver.arms import make_arms
from service.driver.assignments import AssignmentMaker
from service.driver.dispatcher import Decision, Dispatcher, StopKind
from service.ledger.spool import Record
from trainers.ray_cohort import Assignment, Ending, MemberReport, Verdict

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
    """Give every trial its own rank, the same at each step; every seventh diverges late."""
    if trial % 7 == 6 and step == STEPS:
        return math.nan
    return 1.0 + (trial * 37 % 101) / 101


@dataclass
class _Slot:
    number: int = 0
    verdict: Verdict | None = None
    assignment: Assignment | None = None
    step: int = 0


@dataclass
class Simulation:
    """Runs a dispatcher against slots in an order that a seed decides.

    Attributes:
        records: Everything that was decided, in order.
        assigned: Numbers of trials as they were assigned, in order.
        deciding: Called with the records of each decision before its verdicts are followed.
    """

    specification: Specification
    seed: int = 0
    loss_rate: float = 0.0
    records: list[Record] = field(default_factory=list)
    assigned: list[int] = field(default_factory=list)
    value: Callable[[int, int], float] = objective

    def __post_init__(self) -> None:
        maker = AssignmentMaker(self.specification, data=DataDirectory(Path("/nowhere")), campaign_id="c", attempt=1)
        limit = SpendingLimit(self.specification, wall_seconds=lambda: 0.5 * self.num_reports)
        arms = make_arms(self.specification)
        self.dispatcher = Dispatcher(arms, assignment=maker.assignment, now=lambda: 0, limit=limit)
        self._random = random.Random(self.seed)
        self._slots: dict[str, _Slot] = {}
        self._num_opened = 0
        self.num_reports = 0  # each uses a second of a device, and half a second of wall time

    def run(self, *, stop_after: int | None = None, kind: StopKind = StopKind.CANCEL, max_rounds: int = 10_000) -> None:
        """Run until the dispatcher is over; `stop_after` asks it to stop after so many reports."""
        for _ in range(max_rounds):
            self._open_slots()
            if self.dispatcher.is_over():
                return
            able = [name for name, slot in self._slots.items() if slot.verdict is not None]
            assert able, "no slot can go on: the dispatcher is stuck"
            name = self._random.choice(able)
            if self._random.random() < self.loss_rate:
                del self._slots[name]
                self._carry_out(self.dispatcher.lose(name, "killed"))
            else:
                self.num_reports += self._go_on(name)
            if self.num_reports == stop_after:
                self._carry_out(self.dispatcher.stop(kind))
                stop_after = None
        raise AssertionError(f"the dispatcher was not over after {max_rounds} rounds")

    def observed(self) -> list[tuple[int, int]]:
        """List (trial, step) of every observation that was decided."""
        return [(each["trial"], each["step"]) for each in self.records if each["kind"] == "observation"]

    def final_states(self) -> dict[int, str]:
        """Give each trial's last state."""
        states = {each["trial"]: "PENDING" for each in self.records if each["kind"] == "trial_created"}
        for each in self.records:
            if each["kind"] == "trial_moved":
                states[each["trial"]] = each["state"]
            elif each["kind"] == "trial_lost":
                states[each["trial"]] = "PENDING"
        return states

    def _open_slots(self) -> None:
        workers = self.specification.resources.workers
        while len(self._slots) < min(workers, self.dispatcher.num_slots_wanted()):
            name = f"slot-{self._num_opened}"
            self._num_opened += 1
            self._slots[name] = _Slot()
            self._carry_out(self.dispatcher.open_slot(name))

    def _carry_out(self, decision: Decision) -> None:
        self.records += decision.records
        for name, number, verdict in decision.verdicts:
            slot = self._slots[name]
            assert slot.number == number, f"a verdict on report {number} while {slot.number} waits"
            assert slot.verdict is None, "a second verdict on the same report"
            slot.verdict = verdict
            self.assigned += [assignment.trial for assignment in verdict.admit]

    def _go_on(self, name: str) -> int:
        """Let a slot follow its verdict; tell how many reports it made."""
        slot = self._slots[name]
        verdict, slot.verdict = slot.verdict, None
        assert verdict is not None
        if slot.assignment is not None and slot.assignment.trial in verdict.evict:
            slot.assignment = None
        if verdict.finish:
            del self._slots[name]
            self.dispatcher.close_slot(name)
            return 0
        for assignment in verdict.admit:
            slot.assignment, slot.step = assignment, 0
        assert slot.assignment is not None, "a slot without work was told to go on"
        slot.number += 1
        self._carry_out(self.dispatcher.take(name, slot.number, [self._train(slot, slot.assignment)]))
        return 1

    def _train(self, slot: _Slot, assignment: Assignment) -> MemberReport:
        if self.dispatcher.is_stopping:
            return MemberReport(assignment.trial, slot.step, Ending.INTERRUPTED, {}, "", 1.0, 0)
        slot.step = next(step for step in assignment.report_steps if step > slot.step)
        value = self.value(assignment.trial, slot.step)
        ending = Ending.REACHED if math.isfinite(value) else Ending.DIVERGED
        return MemberReport(assignment.trial, slot.step, ending, {"validation_loss": value}, "", 1.0, 0)
