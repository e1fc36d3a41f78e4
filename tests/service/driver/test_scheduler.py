"""The scheduler brings every trial to its end, once, in whatever order slots report, die or are told to stop."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from spectune.service.campaign.model.records import Observation, TrialRecord
from spectune.service.driver.stop_kinds import StopKind
from spectune.service.driver.trial_transitions import MAX_LOSSES
from spectune.service.ledger import Ledger
from spectune.trainers.engines.fused_step_check import FusionCheck
from tests.fakes.slots import STEPS, Simulation, objective, specification

SEEDS = range(8)
MEMBERS = [1, 4, None]
ENDED = {"COMPLETED", "STOPPED", "DIVERGED", "FAILED", "CANCELLED"}


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_point_is_tried_once_and_every_trial_ends(seed: int, members: int | None) -> None:
    simulation = Simulation(specification(), seed=seed, members=members)
    simulation.run()
    states = simulation.final_states()
    assert sorted(states) == list(range(18))
    assert set(states.values()) <= ENDED
    assert sorted(simulation.assigned) == list(range(18))
    assert max(Counter(simulation.observed()).values()) == 1


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_lost_slots_cost_no_trial_and_double_no_observation(seed: int, members: int | None) -> None:
    simulation = Simulation(specification(stopping={"rule": "none"}), seed=seed, loss_rate=0.1, members=members)
    simulation.run()
    observed = simulation.observed()
    assert max(Counter(observed).values()) == 1
    for trial, state in simulation.final_states().items():
        if state == "COMPLETED":
            assert [step for number, step in observed if number == trial] == [30, 60, 90]
        else:
            assert state in {"DIVERGED", "FAILED"}


def test_a_trial_that_loses_every_worker_fails_after_three() -> None:
    simulation = Simulation(specification(search={"sampler": "random", "points": 1}), loss_rate=1.0)
    simulation.run()
    assert set(simulation.final_states().values()) == {"FAILED"}
    lost = Counter(each["trial"] for each in simulation.records if each["kind"] == "trial_lost")
    assert set(lost.values()) == {MAX_LOSSES - 1}


@pytest.mark.parametrize(
    ("loss_rate", "checkpoint_rate"),
    [(0.04, 0.0), (0.03, 0.5)],  # at 0.05 one trial happens to lose three workers in a row, and fails
)
@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_deterministic_campaign_does_not_depend_on_which_slot_is_first(
    sampler: str, members: int, loss_rate: float, checkpoint_rate: float
) -> None:
    search = {"sampler": sampler, "points": 24, "deterministic": True}
    outcomes = []
    for seed in SEEDS:
        simulation = Simulation(
            specification(search=search),
            seed=seed,
            loss_rate=loss_rate * (seed % 2),
            checkpoint_rate=checkpoint_rate,
            members=members,
        )
        simulation.run()
        configs = {each["trial"]: each["config"] for each in simulation.records if each["kind"] == "trial_created"}
        outcomes.append((configs, simulation.final_states(), sorted(simulation.observed())))
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_what_is_not_deterministic_does_depend_on_it() -> None:
    """The test above must be able to fail: asynchronous halving keeps whoever arrives first."""
    runs = [Simulation(specification(search={"sampler": "random", "points": 24}), seed=seed) for seed in SEEDS]
    for run in runs:
        run.run()
    assert len({tuple(sorted(run.final_states().items())) for run in runs}) > 1


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("num_reports", [0, 1, 5, 17])
def test_a_cancel_ends_every_slot_and_every_trial(num_reports: int, members: int | None) -> None:
    simulation = Simulation(specification(), seed=num_reports, members=members)
    simulation.run(stop_after=num_reports or None, kind=StopKind.CANCEL)
    assert set(simulation.final_states().values()) <= ENDED


@pytest.mark.parametrize(("num_reports", "members"), [(1, 1), (5, 1), (17, 1), (1, 4), (5, 4), (3, None)])
def test_a_pause_leaves_what_is_not_done_pending(num_reports: int, members: int | None) -> None:
    simulation = Simulation(specification(), seed=num_reports, members=members)
    simulation.run(stop_after=num_reports, kind=StopKind.PAUSE)
    states = simulation.final_states()
    assert "PENDING" in states.values()
    assert set(states.values()) <= ENDED | {"PENDING"}


def test_device_time_is_shared_equally_between_arms() -> None:
    simulation = Simulation(specification(stopping={"rule": "none"}))
    simulation.run()
    half = simulation.assigned[: len(simulation.assigned) // 2]
    assert abs(sum(trial % 2 for trial in half) - len(half) / 2) <= 2


@pytest.mark.parametrize("num_reports", range(3, 36, 4))
@pytest.mark.parametrize(
    ("sampler", "rule"), [("tpe", "successive_halving"), ("sobol", "hyperband"), ("grid", "median")]
)
def test_a_new_attempt_goes_on_where_the_ledger_stands(
    num_reports: int, sampler: str, rule: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sections: dict[str, Any] = {
        "search": {"sampler": sampler, "points": 24, "deterministic": True},
        "stopping": {"rule": rule, "min_steps": 30},
    }
    if sampler == "grid":
        sections["arms"] = [
            {"optimizer": name, "space": {"lr": {"uniform": [1e-4, 0.1]}}} for name in ("muon", "adamw")
        ]
        sections["search"]["levels"] = 24
    whole = Simulation(specification(**sections))
    whole.run()

    first = Simulation(specification(**sections), seed=1)
    first.run(stop_after=num_reports, kind=StopKind.PAUSE)
    second = Simulation(specification(**sections), seed=2, checkpoints=first.checkpoints)
    second.records += second.scheduler.restore(*_in_ledger(first, tmp_path_factory)).records
    second.run()

    both = first.observed() + second.observed()
    assert sorted(both) == sorted(whole.observed())
    assert first.final_states() | second.final_states() == whole.final_states()


@pytest.mark.parametrize("seed", SEEDS)
def test_after_trials_of_an_older_release_no_point_is_given_twice(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rates = [0.01, 0.02, 0.03, 0.04, 0.05]
    arms = [{"optimizer": "muon", "space": {"lr": {"choice": rates}}}]
    search = {"sampler": "random", "points": 5, "search_seed": seed, "deterministic": True}
    asked = specification(arms=arms, search=search, stopping={"rule": "none"})
    first = Simulation(asked, members=1)
    first.run(stop_after=2, kind=StopKind.PAUSE)
    for record in first.records:
        if record["kind"] == "trial_created":
            record["config"] = {"lr": record["config"]["lr"]}  # it named nothing else
    second = Simulation(asked, members=1)
    second.records += second.scheduler.restore(*_in_ledger(first, tmp_path_factory)).records
    second.run()
    created = [each["config"]["lr"] for each in first.records + second.records if each["kind"] == "trial_created"]
    assert len(created) > len([each for each in first.records if each["kind"] == "trial_created"])
    assert sorted(created) == rates


def test_a_lane_that_is_freed_is_filled_at_once() -> None:
    simulation = Simulation(specification(search={"sampler": "random", "points": 24}), members=4)
    simulation.run()
    assert simulation.largest == 8  # four of each arm
    assert sorted(simulation.assigned) == list(range(48))


def test_no_slot_takes_so_many_that_another_starves() -> None:
    few = specification(search={"sampler": "random", "points": 3}, stopping={"rule": "none"})
    simulation = Simulation(few, members=64)
    simulation.run()
    assert simulation.largest == 2  # six trials in three slots


def test_what_the_first_member_finds_out_fills_the_slots_of_its_arm() -> None:
    many = specification(search={"sampler": "random", "points": 24}, stopping={"rule": "none"})
    simulation = Simulation(many, members=None, planned=6)
    simulation.run()
    plans = [(each["arm"], each["plan"]["members"]) for each in simulation.records if each["kind"] == "planned"]
    assert {arm for arm, _ in plans} == {0, 1}
    assert {members for _, members in plans} == {6}
    assert simulation.largest == 12  # six of each arm


@pytest.mark.parametrize("deviation", [1e-7, 1e-3, math.nan])
def test_an_arm_whose_fused_steps_are_not_the_steps_alone_is_fused_no_further(deviation: float) -> None:
    one_arm = specification(
        arms=[{"optimizer": "muon", "space": "default"}],
        search={"sampler": "random", "points": 24},
        stopping={"rule": "none"},
        resources={"workers": 1},
    )
    simulation = Simulation(one_arm, members=4, check=FusionCheck(30, deviation, 1e-5), value=lambda trial, step: 1.0)
    simulation.run()
    checks = [each["check"]["holds"] for each in simulation.records if each["kind"] == "fusion_checked"]
    holds = deviation < 1e-5
    assert checks[0] is holds
    assert len(checks) == (18 if holds else 3)  # of three stretches a cohort: six cohorts, or the first alone
    assert set(simulation.final_states().values()) == {"COMPLETED"}


def test_trials_that_report_together_are_judged_together() -> None:
    """Asynchronous halving keeps the first to come; of nine that come together exactly three go on."""
    one_arm = specification(
        arms=[{"optimizer": "muon", "space": "default"}],
        search={"sampler": "random", "points": 9},
        resources={"workers": 1},
    )
    simulation = Simulation(one_arm, members=9, value=lambda trial, step: 1.0 + trial)
    simulation.run()
    kept = sorted({trial for trial, step in simulation.observed() if step == STEPS})
    assert kept == [0, 1, 2]


def test_a_trial_that_takes_its_worker_down_is_soon_alone_and_fails_alone() -> None:
    many = specification(search={"sampler": "random", "points": 20}, stopping={"rule": "none"})
    simulation = Simulation(many, members=16, culprit=4, value=lambda trial, step: 1.0)
    simulation.run()
    states = simulation.final_states()
    assert {trial for trial, state in states.items() if state == "FAILED"} == {4}
    assert set(states.values()) == {"FAILED", "COMPLETED"}


@pytest.mark.parametrize("members", MEMBERS)
def test_a_report_without_the_objective_fails_its_trial_alone(members: int | None) -> None:
    without_rule = specification(stopping={"rule": "none"})
    silent, whole = (Simulation(without_rule, members=members, silent=trial) for trial in (3, None))
    silent.run()
    whole.run()
    assert silent.final_states() == whole.final_states() | {3: "FAILED"}
    assert sorted(silent.observed()) == sorted(set(whole.observed()) - {(3, 60), (3, 90)})
    (moved,) = [each for each in silent.records if each["kind"] == "trial_moved" and each["state"] == "FAILED"]
    assert moved["message"] == "step 60 was reported without validation_loss: got loss"


def test_wall_time_is_spent_without_reports_too() -> None:
    simulation = Simulation(specification(budget={"wall_seconds": 100}))
    simulation.scheduler.open_slot("s")
    assert not simulation.scheduler.check_limits().commands
    simulation.wall_seconds = 100.0
    simulation.scheduler.check_limits()
    assert simulation.scheduler.is_stopping


def _in_ledger(
    simulation: Simulation, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[TrialRecord], list[Observation]]:
    with Ledger.at(tmp_path_factory.mktemp("ledger") / "ledger.sqlite") as ledger:
        ledger.create_campaign("c", name="simulated", specification={})
        ledger.append("c", ledger.begin_attempt("c"), list(enumerate(simulation.records, start=1)))
        return ledger.trials("c"), ledger.observations("c")


def test_the_simulated_objective_ranks_trials_the_same_at_every_step() -> None:
    assert [objective(3, step) for step in (30, 60, STEPS)] == [objective(3, 30)] * 3


def test_seeds_of_a_point_that_a_crash_swallowed_are_made_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    two_seeds = specification(search={"sampler": "random", "points": 4, "seeds": 2}, stopping={"rule": "none"})
    first = Simulation(two_seeds)
    first.run(stop_after=2, kind=StopKind.PAUSE)
    first.records = [each for each in first.records if each["trial"] != 1]
    second = Simulation(two_seeds)
    second.records += second.scheduler.restore(*_in_ledger(first, tmp_path_factory)).records
    second.run()
    assert next(each["trial"] for each in second.records if each["kind"] == "trial_created") == 1
    assert sorted(first.final_states() | second.final_states()) == list(range(16))


# Beyond the search


def _beyond(**changes: Any) -> dict[str, Any]:
    return {
        "search": {"sampler": "random", "points": 18},
        "stopping": {"rule": "successive_halving", "min_steps": 30, "audit": 3},
        "finals": {"keep": 1, "seeds": 4},
        **changes,
    }


def _created(simulation: Simulation) -> dict[int, dict[str, Any]]:
    return {each["trial"]: each for each in simulation.records if each["kind"] == "trial_created"}


@pytest.mark.parametrize("seed", SEEDS)
def test_finals_and_audit_follow_the_search_with_seeds_and_steps_of_their_own(seed: int) -> None:
    simulation = Simulation(specification(**_beyond()), seed=seed, loss_rate=0.02, value=_never_diverging)
    simulation.run()
    created, states = _created(simulation), simulation.final_states()
    finals = [each for each in created.values() if each["ask"].get("phase") == "final"]
    assert sorted(each["trial"] for each in finals) == list(range(36, 44))
    assert sorted((each["arm"], each["seed_index"]) for each in finals) == [
        (arm, index) for arm in (0, 1) for index in (1, 2, 3, 4)
    ]
    audits = [each for each in created.values() if each["ask"].get("phase") == "audit"]
    assert len(audits) == 6
    assert {states[each["trial"]] for each in finals + audits} == {"COMPLETED"}
    for each in audits:
        of = created[each["ask"]["of"]]
        assert states[of["trial"]] == "STOPPED"
        assert (each["config"], each["seed_index"]) == (of["config"], of["seed_index"])


def _never_diverging(trial: int, step: int) -> float:
    return 1.0 + (trial * 37 % 101) / 101


@pytest.mark.parametrize("num_reports", [5, 60, 95, 110])
def test_a_new_attempt_makes_what_is_missing_beyond_the_search_and_no_more(
    num_reports: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sections = _beyond(search={"sampler": "random", "points": 18, "deterministic": True})
    whole = Simulation(specification(**sections), value=_never_diverging)
    whole.run()
    first = Simulation(specification(**sections), seed=1, value=_never_diverging)
    first.run(stop_after=num_reports, kind=StopKind.PAUSE)
    second = Simulation(specification(**sections), seed=2, value=_never_diverging)
    second.records += second.scheduler.restore(*_in_ledger(first, tmp_path_factory)).records
    second.run()
    assert sorted(first.observed() + second.observed()) == sorted(whole.observed())
    assert first.final_states() | second.final_states() == whole.final_states()


def test_the_budget_of_trials_is_shared_between_arms_and_never_exceeded() -> None:
    two = {"sampler": "random", "points": 9, "seeds": 2}
    simulation = Simulation(specification(**_beyond(budget={"trials": 21}, stopping={"rule": "none"}, search=two)))
    simulation.run()
    arms = Counter(each["arm"] for each in _created(simulation).values())
    assert arms == {0: 10, 1: 10}
    assert all(state in ENDED for state in simulation.final_states().values())


def test_finals_get_what_the_budget_leaves() -> None:
    sections = _beyond(budget={"trials": 44}, stopping={"rule": "none"})
    sections["search"] = {"sampler": "random", "points": 9, "seeds": 2}
    simulation = Simulation(specification(**sections), value=_never_diverging)
    simulation.run()
    phases = Counter((each["arm"], each["ask"].get("phase", "search")) for each in _created(simulation).values())
    assert phases == {(0, "search"): 18, (1, "search"): 18, (0, "final"): 4, (1, "final"): 4}


# Budgets


@pytest.mark.parametrize(
    ("budget", "reason", "members"),
    [
        ({"device_seconds": 20}, "device_seconds_spent", 1),
        ({"device_seconds": 20}, "device_seconds_spent", 4),
        ({"wall_seconds": 10}, "wall_seconds_spent", 1),
    ],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_budget_is_overspent_by_at_most_a_report_of_each_member(
    budget: dict[str, Any], reason: str, seed: int, members: int
) -> None:
    asked = specification(budget=budget, search={"sampler": "random", "points": 18})
    simulation = Simulation(asked, seed=seed, members=members)
    simulation.run()
    used = _device_seconds(simulation) if "device_seconds" in budget else simulation.num_reports
    assert 20 <= used <= 20 + 3 * 2 * members
    assert simulation.scheduler.exhausted is not None
    assert simulation.scheduler.exhausted.limit == reason
    moves = [each for each in simulation.records if each["kind"] == "trial_moved" and each["state"] == "CANCELLED"]
    assert {each["reason"] for each in moves} == {reason}
    assert set(simulation.final_states().values()) <= ENDED


def _device_seconds(simulation: Simulation) -> float:
    return float(sum(each.get("device_seconds", 0.0) for each in simulation.records))


def test_a_campaign_ends_when_its_target_is_reached() -> None:
    simulation = Simulation(specification(target=1.1, stopping={"rule": "none"}))
    simulation.run()
    reached = [each for each in simulation.records if each["kind"] == "observation" and each["objective"] <= 1.1]
    assert len(reached) == 1
    assert simulation.scheduler.exhausted is not None
    assert simulation.scheduler.exhausted.message.endswith("the target is 1.1")
    untouched = Simulation(specification(target=0.5))
    untouched.run()
    assert untouched.scheduler.exhausted is None


def test_what_was_spent_before_a_restart_is_spent(tmp_path_factory: pytest.TempPathFactory) -> None:
    asked = specification(budget={"device_seconds": 12}, stopping={"rule": "none"})
    first = Simulation(asked)
    first.run(stop_after=9, kind=StopKind.PAUSE)
    second = Simulation(asked, seed=1)
    second.records += second.scheduler.restore(*_in_ledger(first, tmp_path_factory)).records
    second.run()
    assert 12 <= _device_seconds(first) + _device_seconds(second) <= 12 + 3 * 2
    third = Simulation(asked)
    both = Simulation(asked)
    both.records = first.records + second.records
    third.scheduler.restore(*_in_ledger(both, tmp_path_factory))
    assert third.scheduler.is_over()
    assert third.scheduler.exhausted is not None


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("seed", range(3))
def test_trials_that_users_do_not_want_end_wherever_they_are_and_the_others_go_on(
    seed: int, members: int | None
) -> None:
    search = {"sampler": "tpe", "points": 9, "deterministic": True}
    asked = specification(search=search, stopping={"rule": "none"})
    again = Simulation(asked, seed=seed, members=members)
    unwanted = {0, 4, 7}
    again._carry_out(again.scheduler.stop_trials(unwanted))  # long before some of them begin
    again.run()
    states = again.final_states()
    assert {number for number, state in states.items() if state == "CANCELLED"} == unwanted
    assert len(states) == 18
    reasons = {each["reason"] for each in again.records if each.get("state") == "CANCELLED"}
    assert reasons == {"stopped_by_user"}
    assert all(max([step for number, step in again.observed() if number == each], default=0) < 90 for each in unwanted)


def test_a_trial_that_ended_before_it_was_stopped_has_ended_so() -> None:
    simulation = Simulation(specification(stopping={"rule": "none"}))
    simulation.run()
    assert simulation.scheduler.stop_trials([0, 1]).records == []
