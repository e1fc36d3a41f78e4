"""Successive halving: who survives, whatever the order of arrival."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.stopping.halving import RungOutcome, StoppingRule, SuccessiveHalving
from spectune.service.campaign.stopping.hyperband import Hyperband
from spectune.service.campaign.stopping.median import Median

KEEP, STOP, WAIT = RungOutcome.KEEP, RungOutcome.STOP, RungOutcome.WAIT


def _rule(num_trials: int, **changes: Any) -> SuccessiveHalving:
    rule = SuccessiveHalving(**{"rungs": (10, 30), "reduction_factor": 3, **changes})
    for trial in range(num_trials):
        rule.begin(trial)
    return rule


def _kept(decisions: dict[int, Any]) -> list[int]:
    return sorted(trial for trial, decision in decisions.items() if decision.outcome is KEEP)


def test_exactly_a_third_of_those_that_report_together_survive() -> None:
    values = [(trial, float((trial * 7) % 27)) for trial in range(27)]
    decisions = _rule(27).submit(10, values)
    assert _kept(decisions) == sorted(trial for trial, value in values if value < 9)


@pytest.mark.parametrize(("num_trials", "survivors"), [(1, 1), (2, 1), (3, 1), (4, 2), (9, 3), (10, 4)])
def test_the_number_of_survivors_is_rounded_up(num_trials: int, survivors: int) -> None:
    decisions = _rule(num_trials).submit(10, [(trial, float(trial)) for trial in range(num_trials)])
    assert _kept(decisions) == list(range(survivors))


def test_equal_values_are_ranked_by_trial_number() -> None:
    decisions = _rule(6).submit(10, [(trial, 1.0) for trial in (5, 4, 3, 2, 1, 0)])
    assert _kept(decisions) == [0, 1]


def test_larger_values_survive_where_larger_is_better() -> None:
    decisions = _rule(3, mode="maximize").submit(10, [(0, 0.1), (1, 0.9), (2, 0.5)])
    assert _kept(decisions) == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_never_goes_on_and_sorts_last(value: float) -> None:
    rule = _rule(4, mode="minimize")
    assert rule.submit(10, [(0, value)])[0].outcome is STOP
    assert _kept(rule.submit(10, [(1, 5.0), (2, 6.0), (3, 7.0)])) == [1, 2]  # 4 at the rung, so 2 go on


def test_the_first_to_arrive_passes_and_the_next_ones_are_compared_with_it() -> None:
    rule = _rule(3)
    assert rule.submit(10, [(0, 1.0)])[0].outcome is KEEP
    assert rule.submit(10, [(1, 2.0)])[1].outcome is STOP
    assert rule.submit(10, [(2, 0.5)])[2].outcome is KEEP


def test_a_decision_says_why() -> None:
    decision = _rule(2).submit(10, [(0, 1.0), (1, 2.0)])[1]
    assert decision.reason == "rank 2 of 2 at step 10, where 1 go on: got 2"


def test_what_was_decided_is_not_decided_again() -> None:
    rule = _rule(4)
    first = rule.submit(10, [(0, 1.0)])[0]
    rule.submit(10, [(1, 0.1), (2, 0.2), (3, 0.3)])
    assert rule.submit(10, [(0, 9.0)])[0] == first


def test_a_trial_that_diverges_has_lost_at_its_next_rung() -> None:
    rule = _rule(4)
    for trial in (0, 1):
        rule.end(trial, TrialState.DIVERGED)
    assert _kept(rule.submit(10, [(2, 1.0), (3, 2.0)])) == [2, 3]  # 4 at the rung, so 2 go on


def test_a_trial_that_ends_otherwise_does_not_count() -> None:
    rule = _rule(4)
    for trial in (0, 1):
        rule.end(trial, TrialState.COMPLETED)
    assert _kept(rule.submit(10, [(2, 1.0), (3, 2.0)])) == [2]


def test_a_step_that_is_no_rung_and_a_trial_that_is_not_live_are_refused() -> None:
    rule = _rule(1)
    with pytest.raises(ValueError, match=r"the rungs are \[10, 30\]: got step 11"):
        rule.submit(11, [(0, 1.0)])
    with pytest.raises(ValueError, match=r"only live trials are judged: got \[5\]"):
        rule.submit(10, [(5, 1.0)])


# Rebuilding


def test_a_rule_restored_from_the_ledger_goes_on_as_the_one_before() -> None:
    generator = random.Random(0)
    values = {trial: {10: generator.random(), 30: generator.random()} for trial in range(20)}
    whole = _rule(20)
    first_half = whole.submit(10, [(trial, values[trial][10]) for trial in range(12)])
    kept = _kept(first_half)
    stopped = [trial for trial in range(12) if trial not in kept]
    for trial in stopped:
        whole.end(trial, TrialState.STOPPED)
    whole.end(kept[-1], TrialState.DIVERGED)

    observed: dict[int, dict[int, float]] = {trial: {} for trial in range(20)}
    observed |= {trial: {10: values[trial][10]} for trial in range(12)}
    observed |= {trial: {10: values[trial][10], 15: 0.0} for trial in kept}
    restored = SuccessiveHalving((10, 30), reduction_factor=3)
    restored.restore(observed, ended=dict.fromkeys(stopped, TrialState.STOPPED) | {kept[-1]: TrialState.DIVERGED})

    for rule in (whole, restored):
        assert _kept(rule.submit(10, [(kept[0], values[kept[0]][10])])) == [kept[0]]
    rest = [(trial, values[trial][10]) for trial in range(12, 20)]
    assert whole.submit(10, rest) == restored.submit(10, rest)
    at_the_end = [(trial, values[trial][30]) for trial in kept[:-1]]
    assert whole.submit(30, at_the_end) == restored.submit(30, at_the_end)


# Deterministic mode


RULES: dict[str, Callable[[], StoppingRule]] = {
    "successive_halving": lambda: SuccessiveHalving((10, 30), reduction_factor=3, deterministic=True),
    "hyperband": lambda: Hyperband((10, 30), reduction_factor=3, deterministic=True),
    "median": lambda: Median((10, 30), deterministic=True),
}


class _Lanes:
    """A toy driver: so many lanes whose trials advance one rung at a time, in a random order.

    Trial 3 reports NaN at the first rung, trial 5 diverges before it, and trials 4 and 8 diverge with their reports at
    the first and the second: such a report is in the ledger but was never submitted.
    """

    def __init__(
        self,
        *,
        order_seed: int,
        num_trials: int,
        num_lanes: int,
        restart_every: int | None = None,
        rule: str = "successive_halving",
    ) -> None:
        self._generator = random.Random(order_seed)
        self._num_lanes = num_lanes
        self._restart_every = restart_every
        self._ahead = list(range(num_trials))
        self._running: list[int] = []
        self._passed: dict[int, int] = {}
        self._reported: dict[int, dict[int, float]] = {}
        self._make_rule = RULES[rule]
        self._rule = self._make_rule()
        self.ends: dict[int, str] = {}

    def run(self) -> dict[int, str]:
        """Run to the end; tell how each trial ended."""
        for turn in range(10_000):
            self._fill()
            if not self._running:
                return dict(sorted(self.ends.items()))
            if self._restart_every and turn % self._restart_every == 0:
                self._restart()
            self._advance(self._generator.choice(self._running))
        raise AssertionError(f"deadlock: got {self._running}")

    def _fill(self) -> None:
        while self._ahead and len(self._running) < self._num_lanes:
            trial = self._ahead.pop(0)
            self._running.append(trial)
            self._reported[trial] = {}
            self._rule.begin(trial)

    def _restart(self) -> None:
        self._rule = self._make_rule()
        self._rule.restore(self._reported, ended={trial: _outcome(end) for trial, end in self.ends.items()})

    def _advance(self, trial: int) -> None:
        """Take a trial to its next rung, or ask again at the one where it waits."""
        num_passed = self._passed.get(trial, 0)
        if trial == 5:
            self._end(trial, "diverged")
        elif num_passed == 2:
            self._end(trial, "completed")
        elif (trial, num_passed) in ((4, 0), (8, 1)):
            self._reported[trial][(10, 30)[num_passed]] = math.nan
            self._end(trial, "diverged")
        else:
            rung = (10, 30)[num_passed]
            value = math.nan if (trial, rung) == (3, 10) else math.sin(trial * (1.7 + rung))
            self._reported[trial][rung] = -5.0 if trial == 8 else value  # it gets to its divergence
            verdict = self._rule.submit(rung, [(trial, self._reported[trial][rung])])[trial].outcome
            if verdict is KEEP:
                self._passed[trial] = num_passed + 1
            elif verdict is STOP:
                self._end(trial, f"stopped at {rung}")

    def _end(self, trial: int, how: str) -> None:
        self.ends[trial] = how
        self._running.remove(trial)
        self._rule.end(trial, _outcome(how))


def _outcome(how: str) -> TrialState:
    outcomes = {"diverged": TrialState.DIVERGED, "completed": TrialState.COMPLETED}
    return outcomes.get(how, TrialState.STOPPED)


@pytest.mark.parametrize("rule", RULES)
def test_in_deterministic_mode_the_order_of_arrival_changes_nothing(rule: str) -> None:
    lanes = [(0, 1), (1, 3), (2, 5), (3, 20), (4, 20)]
    outcomes = [
        _Lanes(order_seed=seed, num_trials=24, num_lanes=num_lanes, rule=rule).run() for seed, num_lanes in lanes
    ]
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert set(outcomes[0].values()) == {"completed", "stopped at 10", "stopped at 30", "diverged"}


def test_in_the_other_mode_it_does_which_shows_that_the_test_above_can_fail() -> None:
    def survivors(order: list[int]) -> list[int]:
        rule = _rule(9)
        return _kept({trial: rule.submit(10, [(trial, float(trial))])[trial] for trial in order})

    assert survivors(list(range(9))) != survivors(list(reversed(range(9))))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("restart_every", [1, 7])
def test_in_deterministic_mode_a_restart_changes_nothing(rule: str, restart_every: int) -> None:
    plain = _Lanes(order_seed=1, num_trials=24, num_lanes=4, rule=rule).run()
    again = _Lanes(order_seed=2, num_trials=24, num_lanes=4, restart_every=restart_every, rule=rule)
    assert again.run() == plain


def test_a_trial_waits_for_lower_numbers_until_they_have_come_or_ended() -> None:
    rule = _rule(3, deterministic=True)
    decision = rule.submit(10, [(2, 0.5)])[2]
    assert (decision.outcome, decision.reason) == (WAIT, "at step 10, for trials [0, 1]")
    assert rule.submit(10, [(0, 1.0)])[0].outcome is KEEP
    assert rule.submit(10, [(2, 0.5)])[2].outcome is WAIT
    rule.end(1, TrialState.COMPLETED)
    assert rule.submit(10, [(2, 0.5)])[2].outcome is KEEP


def test_the_lowest_live_trial_never_waits() -> None:
    rule = _rule(5, deterministic=True)
    rule.end(0, TrialState.COMPLETED)
    rule.end(1, TrialState.DIVERGED)
    assert rule.submit(10, [(2, 0.5)])[2].outcome is not WAIT


def test_a_trial_that_diverged_at_a_rung_loses_there_and_not_at_the_next_one_after_a_restart() -> None:
    """Live, its last report is never submitted; restored, it filled the rung and NaN went into the one above."""
    live = SuccessiveHalving((20, 40), reduction_factor=3, deterministic=True)
    for trial in range(4):
        live.begin(trial)
    live.submit(20, [(0, 1.0), (1, 2.0), (2, 3.0)])
    live.end(3, TrialState.DIVERGED)
    live.submit(40, [(0, 1.0)])

    restored = SuccessiveHalving((20, 40), reduction_factor=3, deterministic=True)
    reports = {0: {20: 1.0, 40: 1.0}, 1: {20: 2.0}, 2: {20: 3.0}, 3: {20: float("nan")}}
    restored.restore(reports, ended={3: TrialState.DIVERGED})
    for rule in (live, restored):
        rule.begin(4)
    assert live.submit(20, [(4, 2.5)])[4].reason == restored.submit(20, [(4, 2.5)])[4].reason
    for trial in (1, 2):
        for rule in (live, restored):
            rule.end(trial, TrialState.COMPLETED)
    assert live.submit(40, [(4, 2.5)])[4].reason == restored.submit(40, [(4, 2.5)])[4].reason


# Hyperband


def test_hyperband_deals_points_so_that_each_bracket_costs_about_the_same() -> None:
    rule = Hyperband((9, 27), reduction_factor=3)  # of 81 steps
    brackets = [rule.bracket_of(point) for point in range(135)]
    assert brackets[:3] == [0, 1, 0]
    counts = [brackets.count(bracket) for bracket in range(3)]
    assert counts == pytest.approx([135 * weight / 16.5 for weight in (9, 4.5, 3)], abs=1)
    costs = [n * s for n, s in zip(counts, (9 + 18 / 3 + 54 / 9, 27 + 54 / 3, 81), strict=True)]
    assert max(costs) / min(costs) < 1.4


def test_a_trial_of_hyperband_passes_the_rungs_below_its_brackets_first() -> None:
    rule = Hyperband((10, 30), reduction_factor=3)
    trials = [trial for trial in range(40) if rule.bracket_of(trial) == 1][:9]
    for trial in range(40):
        rule.begin(trial)
    early = rule.submit(10, [(trial, float(trial)) for trial in trials])
    assert _kept(early) == trials
    assert early[trials[0]].reason == "its bracket's first rung is 30"
    assert _kept(rule.submit(30, [(trial, float(trial)) for trial in trials])) == trials[:3]
    with pytest.raises(ValueError, match=r"the rungs are \[10, 30\]: got step 20"):
        rule.submit(20, [(trials[0], 1.0)])


def test_the_seeds_of_a_point_are_in_one_bracket() -> None:
    rule = Hyperband((10,), reduction_factor=3, point_of=lambda trial: trial // 2)
    for trial in range(8):
        rule.begin(trial)
    reports = [(trial, float(trial)) for trial in range(8)]
    reasons = [decision.reason for _, decision in sorted(rule.submit(10, reports).items())]
    passed = [reason == "its bracket's first rung is none" for reason in reasons]
    assert passed[::2] == passed[1::2]
    assert 0 < sum(passed) < 8


# Median


def _median(num_trials: int, **changes: Any) -> Median:
    rule = Median(**{"steps": (10, 20, 30), **changes})
    for trial in range(num_trials):
        rule.begin(trial)
    return rule


def test_whoever_is_behind_the_median_is_stopped_once_and_the_better_half_is_not_halved_again() -> None:
    rule = _median(9)
    assert _kept(rule.submit(10, [(trial, float(trial)) for trial in range(9)])) == [0, 1, 2, 3, 4]
    for trial in (5, 6, 7, 8):
        rule.end(trial, TrialState.STOPPED)
    assert _kept(rule.submit(20, [(trial, float(trial)) for trial in range(5)])) == [0, 1, 2, 3, 4]


def test_without_counting_the_stopped_ones_the_half_would_be_halved() -> None:
    rule = _median(9)
    rule.submit(10, [(trial, float(trial)) for trial in range(9)])
    for trial in (5, 6, 7, 8):
        rule.end(trial, TrialState.FAILED)  # an accident says nothing
    assert _kept(rule.submit(20, [(trial, float(trial)) for trial in range(5)])) == [0, 1, 2]


def test_a_trial_that_falls_behind_half_of_all_is_stopped_late() -> None:
    rule = _median(5)
    rule.submit(10, [(trial, float(trial)) for trial in range(5)])
    for trial in (3, 4):
        rule.end(trial, TrialState.STOPPED)
    rule.begin(5)
    rule.submit(10, [(5, -1.0)])
    assert _kept(rule.submit(20, [(5, 0.0), (0, 1.0), (1, 2.0), (2, 3.0)])) == [0, 1, 5]


def test_the_median_of_two_stops_nobody_but_nan_never_goes_on() -> None:
    decisions = _median(2).submit(10, [(0, 1.0), (1, math.nan)])
    assert _kept(decisions) == [0]
    assert _kept(_median(2).submit(10, [(0, 1.0), (1, 2.0)])) == [0, 1]
