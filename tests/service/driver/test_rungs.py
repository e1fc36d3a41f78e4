"""Trials that wait at a rung of a deterministic campaign, and whose slot is lost meanwhile: told slot by slot."""

from __future__ import annotations

from typing import Any

import pytest

from spectune.service.driver.arms import make_arms
from spectune.service.driver.assignments import AssignmentMaker
from spectune.service.driver.decision import Decision
from spectune.service.driver.scheduler import Scheduler
from spectune.service.driver.slot_capacity import SlotCapacity
from spectune.trainers.worker.messages import MemberReport, SlotCommand, SlotReport, TrialEnding
from tests.fakes.slots import specification

FIRST, SECOND = 30, 60  # the rungs


def scheduler(*, workers: int, members: int, points: int) -> Scheduler:
    campaign = specification(
        arms=[{"optimizer": "muon", "space": "default"}],
        search={"sampler": "random", "points": points, "deterministic": True},
        stopping={"rule": "successive_halving", "min_steps": FIRST, "reduction_factor": 2},
        resources={"workers": workers},
    )
    arms = make_arms(campaign)
    lanes = SlotCapacity(arms, members=members, num_slots=workers)
    return Scheduler(arms, lanes=lanes, assignment=AssignmentMaker(campaign).assignment, now=lambda: 0)


def reports(number: int, at: int, values: dict[int, float]) -> SlotReport:
    members = [
        MemberReport(trial, at, TrialEnding.REACHED, {"validation_loss": value}, "", 1.0, 0)
        for trial, value in values.items()
    ]
    return SlotReport(number, members)


def command_of(decision: Decision, slot: str) -> SlotCommand:
    (command,) = (command for name, _, command in decision.commands if name == slot)
    return command


def moves(decision: Decision, trial: int) -> list[tuple[Any, Any]]:
    moved = [each for each in decision.records if each["kind"] == "trial_moved" and each["trial"] == trial]
    return [(each["state"], each["reason"]) for each in moved]


def admitted(command: SlotCommand) -> list[int]:
    return [each.trial for each in command.admit]


def test_one_that_has_lost_meanwhile_is_stopped_when_it_is_seated_and_who_waited_for_it_goes_on() -> None:
    driver = scheduler(workers=3, members=1, points=3)
    assert [admitted(command_of(driver.open_slot(slot), slot)) for slot in "ABC"] == [[0], [1], [2]]
    assert driver.take("B", reports(1, FIRST, {1: 9.0})).commands == []  # it waits for trial 0
    assert moves(driver.lose("B", "killed"), 1) == [("PENDING", "worker_lost")]
    driver.take("A", reports(1, FIRST, {0: 1.0}))  # trial 1 has lost, and is in no slot
    driver.take("A", reports(2, SECOND, {0: 1.0}))
    driver.take("C", reports(1, FIRST, {2: 0.5}))
    decision = driver.take("C", reports(2, SECOND, {2: 0.5}))  # it waits for trial 1, which enters its slot
    assert moves(decision, 1) == [("RUNNING", "assigned"), ("STOPPED", "stopping_rule")]
    command = command_of(decision, "C")
    assert (admitted(command), command.evict, command.hold) == ([], (1,), ())


def test_those_that_still_wait_are_held_where_they_are_seated_until_the_others_have_come() -> None:
    driver = scheduler(workers=2, members=3, points=6)
    assert [admitted(command_of(driver.open_slot(slot), slot)) for slot in "AB"] == [[0, 1, 2], [3, 4, 5]]
    assert driver.take("B", reports(1, FIRST, {3: 3.0, 4: 0.1, 5: 5.0})).commands == []
    driver.lose("B", "killed")
    command = command_of(driver.open_slot("D"), "D")
    assert (admitted(command), command.hold) == ([3, 4, 5], (3, 4, 5))
    assert driver.take("D", SlotReport(1, [])).commands == []
    decision = driver.take("A", reports(1, FIRST, {0: 0.0, 1: 1.0, 2: 2.0}))
    assert [moves(decision, trial) for trial in (3, 4, 5)] == [
        [("STOPPED", "stopping_rule")],
        [],
        [("STOPPED", "stopping_rule")],
    ]
    assert command_of(decision, "D").hold == ()


@pytest.mark.parametrize("num_losses", [3, 5])
def test_workers_that_are_lost_under_a_trial_that_waits_are_not_counted_against_it(num_losses: int) -> None:
    driver = scheduler(workers=2, members=1, points=2)
    driver.open_slot("A")
    driver.open_slot("0")
    assert driver.take("0", reports(1, FIRST, {1: 1.0})).commands == []
    for number in range(num_losses):
        assert moves(driver.lose(str(number), "killed"), 1) == [("PENDING", "worker_lost")]
        command = command_of(driver.open_slot(str(number + 1)), str(number + 1))
        assert (admitted(command), command.hold) == ([1], (1,))
        assert driver.take(str(number + 1), SlotReport(1, [])).commands == []
