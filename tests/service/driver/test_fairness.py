"""Arms advance side by side: what they have used never differs by more than a report, whenever a campaign ends."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from spectune.service.driver.decision import Decision
from spectune.service.driver.stop_kinds import StopKind
from spectune.service.driver.turns import SLACK_SECONDS
from spectune.trainers.worker.messages import SlotReport
from tests.fakes.slots import Simulation, specification

OPTIMIZERS = ["muon", "adamw", "root", "polargrad"]
RULES: list[dict[str, Any]] = [
    {"rule": "none"},
    {"rule": "successive_halving", "min_steps": 30, "reduction_factor": 3},
    {"rule": "hyperband", "min_steps": 30, "reduction_factor": 2},
    {"rule": "median", "min_steps": 30},
]


class Watch:
    """Compares, after each report, what the arms with work have used.

    Attributes:
        largest_gap: The largest difference between two arms that both have work, beyond the slack, in units of the
            dearest report so far.
    """

    def __init__(self, simulation: Simulation, cost: Callable[[int, int], float]) -> None:
        self._simulation = simulation
        self._cost = cost
        self._dearest = 0.0
        self.largest_gap = 0.0
        simulation.cost = self._charge
        simulation.after_report = self._compare

    def _charge(self, arm: int, num_members: int) -> float:
        seconds = self._cost(arm, num_members)
        self._dearest = max(self._dearest, seconds)
        return seconds

    def _compare(self) -> None:
        used = [arm.device_seconds for arm in self._simulation.arms if arm.unfinished() or arm.may_draw()]
        if len(used) > 1:
            self.largest_gap = max(self.largest_gap, (max(used) - min(used) - SLACK_SECONDS) / self._dearest)


@st.composite
def campaigns(draw: st.DrawFn, workers: st.SearchStrategy[int]) -> dict[str, Any]:
    """Draw the sections of a campaign of two to four arms."""
    optimizers = draw(st.lists(st.sampled_from(OPTIMIZERS), min_size=2, max_size=4))
    arms = [{"optimizer": name, "space": "default", "name": f"arm-{i}"} for i, name in enumerate(optimizers)]
    deterministic, sampler = draw(st.booleans()), draw(st.sampled_from(["random", "sobol", "tpe"]))
    points = draw(st.sampled_from([4, 16, 24]))
    return {
        "arms": arms,
        "search": {
            "sampler": sampler,
            "points": points,
            "seeds": draw(st.integers(1, 2)),
            "deterministic": deterministic,
        },
        "stopping": draw(st.sampled_from(RULES)),
        "finals": draw(st.sampled_from([None, {"keep": 1, "seeds": 3}])),
        "resources": {"workers": draw(workers)},
    }


@st.composite
def costs(draw: st.DrawFn) -> Callable[[int, int], float]:
    """Draw what a cohort's report costs: a part for the step, a part for each member, and a noise."""
    of_step = draw(st.lists(st.floats(0.01, 5.0), min_size=4, max_size=4))
    of_member = draw(st.lists(st.floats(0.0, 2.0), min_size=4, max_size=4))
    noise, chance = draw(st.sampled_from([0.0, 0.5])), random.Random(draw(st.integers(0, 99)))
    return lambda arm, number: (of_step[arm] + number * of_member[arm]) * (1.0 + noise * chance.random())


def simulated(sections: dict[str, Any], members: int | None, seed: int) -> Simulation:
    return Simulation(specification(**sections), seed=seed, members=members, value=lambda trial, step: 1.0 + trial % 5)


@settings(max_examples=40, deadline=None)
@given(
    sections=campaigns(workers=st.just(1)),
    cost=costs(),
    members=st.sampled_from([1, 3, 64, None]),
    end=st.sampled_from([None, 1, 7, 30]),
    budget=st.sampled_from([{}, {"device_seconds": 40.0}, {"wall_seconds": 12.0}, {"trials": 24}]),
    kind=st.sampled_from([StopKind.CANCEL, StopKind.PAUSE]),
)
def test_arms_that_share_a_worker_never_differ_by_more_than_one_report(
    sections: dict[str, Any],
    cost: Callable[[int, int], float],
    members: int | None,
    end: int | None,
    budget: dict[str, Any],
    kind: StopKind,
) -> None:
    simulation = simulated(sections | {"budget": budget}, members, seed=0)
    watch = Watch(simulation, cost)
    simulation.run(stop_after=end, kind=kind)
    assert watch.largest_gap <= 1.0 + 1e-6


@settings(max_examples=40, deadline=None)
@given(
    sections=campaigns(workers=st.integers(2, 4)),
    cost=costs(),
    members=st.sampled_from([1, 3, 64, None]),
    end=st.sampled_from([None, 7, 30]),
    seed=st.integers(0, 99),
)
def test_under_a_budget_in_seconds_several_workers_keep_arms_within_a_report_each(
    sections: dict[str, Any], cost: Callable[[int, int], float], members: int | None, end: int | None, seed: int
) -> None:
    """Each worker may be at one report that nobody knows the end of when it begins."""
    simulation = simulated(sections | {"budget": {"device_seconds": 200.0}}, members, seed)
    watch = Watch(simulation, cost)
    simulation.run(stop_after=end)
    assert watch.largest_gap <= 1.0 + sections["resources"]["workers"] + 1e-6


def test_finding_out_how_many_fit_is_asked_of_one_trial_at_a_time() -> None:
    """All that trains in a slot waits for it, and what else enters with it would be tried out as well."""
    arms = [{"optimizer": name, "space": "default"} for name in OPTIMIZERS]
    simulation = simulated({"arms": arms, "resources": {"workers": 1}}, members=None, seed=0)
    asked: list[list[int]] = []
    carry_out = simulation.scheduler.take

    def take(slot: str, report: SlotReport) -> Decision:
        decision = carry_out(slot, report)
        asked.extend([each.trial for each in command.admit] for _, _, command in decision.commands if command.plan_for)
        return decision

    simulation.scheduler.take = take  # type: ignore[method-assign]
    simulation.run()
    assert asked == [[1], [2], [3]]  # the first was asked when the slot opened
