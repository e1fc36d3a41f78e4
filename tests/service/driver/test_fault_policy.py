"""Code that fails once is tried elsewhere; a worker on which failures cluster loses its work, not its trials."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

import pytest

from spectune.service.driver.fault_policy import MAX_BAD_WORKERS, MAX_STRIKES, FaultPolicy, is_out_of_memory
from spectune.service.driver.slot_capacity import MAX_DEATHS
from tests.fakes.slots import Simulation, specification

MANY: dict[str, Any] = {"search": {"sampler": "random", "points": 24}, "stopping": {"rule": "none"}}


def kinds(simulation: Simulation, kind: str) -> list[dict[str, Any]]:
    return [dict(each) for each in simulation.records if each["kind"] == kind]


def steady(trial: int, step: int) -> float:
    return 1.0 + trial


def test_code_that_fails_once_is_tried_again_in_another_slot() -> None:
    failed_in: list[str] = []

    def once(slot: str, trial: int) -> str:
        if trial != 5 or (failed_in and slot != failed_in[0]):
            return ""
        failed_in.append(slot)
        return "ValueError: no luck"

    simulation = Simulation(specification(**MANY), value=steady, faults=once)
    simulation.run()
    assert len(failed_in) == 1
    assert set(simulation.final_states().values()) == {"COMPLETED"}
    assert [(each["trial"], each["reason"]) for each in kinds(simulation, "trial_lost")] == [(5, "user_code")]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_traceback_that_comes_back_is_final(workers: int) -> None:
    addresses = count(1)
    simulation = Simulation(
        specification(**MANY, resources={"workers": workers}),
        value=steady,
        faults=lambda slot, trial: f"ValueError at 0x{next(addresses):x}" if trial == 5 else "",
    )
    simulation.run()
    states = simulation.final_states()
    assert {trial for trial, state in states.items() if state != "COMPLETED"} == {5}
    assert states[5] == "FAILED"
    assert simulation.assigned.count(5) == 2


def test_a_failure_that_is_another_each_time_is_final_in_the_end() -> None:
    moods = count()
    simulation = Simulation(
        specification(**MANY), value=steady, faults=lambda slot, trial: f"{next(moods)}" if trial == 5 else ""
    )
    simulation.run()
    assert simulation.final_states()[5] == "FAILED"
    assert simulation.assigned.count(5) == 3


@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_poisoned_worker_is_replaced_and_costs_no_trial(workers: int, members: int) -> None:
    simulation = Simulation(
        specification(**MANY, resources={"workers": workers}),
        value=steady,
        members=members,
        faults=lambda slot, trial: "CUDA error: device-side assert triggered" if slot == "slot-0" else "",
    )
    simulation.run()
    assert set(simulation.final_states().values()) == {"COMPLETED"}
    (told,) = kinds(simulation, "quarantined")
    assert told["message"].startswith("slot slot-0 gets another worker")


def test_code_that_fails_everywhere_is_no_workers_fault() -> None:
    simulation = Simulation(specification(**MANY), value=steady, faults=lambda slot, trial: "ValueError: wrong")
    simulation.run()
    assert set(simulation.final_states().values()) == {"FAILED"}
    assert max(Counter(simulation.assigned).values()) == 2
    assert len(kinds(simulation, "quarantined")) <= 3  # before another worker has seen it


def test_a_machine_on_which_workers_die_gets_no_further_one_while_another_works() -> None:
    failures = FaultPolicy()
    assert not any(failures.lose_worker("bad") for _ in range(3 * MAX_BAD_WORKERS))  # there may be no other
    failures = FaultPolicy()
    failures.enter_report("s", "good", failures=[], has_reached=True)
    assert [failures.lose_worker("bad") for _ in range(MAX_BAD_WORKERS)] == [False] * (MAX_BAD_WORKERS - 1) + [True]
    assert failures.quarantined == {"bad"}
    failures.enter_report("s", "bad", failures=[], has_reached=True)
    assert not any(failures.lose_worker("good") for _ in range(3 * MAX_BAD_WORKERS)), "the last machine stays"


def test_a_report_in_which_somebody_got_further_takes_the_strikes_away() -> None:
    failures = FaultPolicy()
    for number in range(3 * MAX_STRIKES):
        assert not failures.enter_report("s", "", failures=[f"{number}"], has_reached=number % MAX_STRIKES == 0)


@pytest.mark.parametrize(
    ("message", "is_memory"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", True),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory", True),
        ("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.", True),
        ("ValueError: out of range", False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_failures(message: str, is_memory: bool) -> None:
    assert is_out_of_memory(message) is is_memory


def test_what_memory_does_not_bear_is_halved_for_good() -> None:
    """Otherwise every cohort that has reported once would be filled up again, into the next lack of memory."""
    simulation: Simulation

    def too_many(slot: str, trial: int) -> str:
        return "can't allocate memory" if simulation.num_members(slot) > 6 else ""

    one_arm = MANY | {"arms": [{"optimizer": "muon", "space": "default"}], "resources": {"workers": 1}}
    one_arm["search"] = {"sampler": "random", "points": 64}
    simulation = Simulation(specification(**one_arm), value=steady, members=32, faults=too_many)
    simulation.run()
    assert set(simulation.final_states().values()) == {"COMPLETED"}
    shrunk = [each["to"]["members"] for each in kinds(simulation, "shrunk")]
    assert shrunk[0] == 16
    assert shrunk == sorted(shrunk, reverse=True)
    assert shrunk[-1] <= 6
    assert not kinds(simulation, "quarantined"), "memory is no fault of the worker"


def test_workers_that_die_without_a_word_under_cohorts_halve_them_too() -> None:
    one_arm = MANY | {"arms": [{"optimizer": "muon", "space": "default"}]}
    one_arm["search"] = {"sampler": "random", "points": 64}
    simulation = Simulation(specification(**one_arm), value=steady, members=8, loss_rate=0.2, seed=2)
    simulation.run()
    lost = Counter(each["trial"] for each in kinds(simulation, "trial_lost"))
    assert lost
    halved = kinds(simulation, "shrunk")
    assert halved
    assert all(each["to"]["members"] <= 4 for each in halved)
    assert MAX_DEATHS > 1


@pytest.mark.parametrize("members", [1, 4])
def test_arms_that_memory_does_not_bear_together_train_one_after_the_other(members: int) -> None:
    """That they share a slot is the driver's choice: no trial fails for it, and no cohort of one arm is halved."""
    simulation: Simulation

    def too_many(slot: str, trial: int) -> str:
        return "can't allocate memory" if simulation.num_arms(slot) > 1 else ""

    one_worker = MANY | {"resources": {"workers": 1}}
    simulation = Simulation(specification(**one_worker), value=steady, members=members, faults=too_many)
    simulation.run()
    assert set(simulation.final_states().values()) == {"COMPLETED"}
    assert not kinds(simulation, "shrunk")
