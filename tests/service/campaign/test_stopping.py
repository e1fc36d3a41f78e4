"""Successive halving: who survives, whatever the order of arrival."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from service.campaign.stopping import RungVerdict, SuccessiveHalving

KEEP, STOP, WAIT = RungVerdict.KEEP, RungVerdict.STOP, RungVerdict.WAIT


def _rule(num_trials: int, **changes: Any) -> SuccessiveHalving:
    rule = SuccessiveHalving(**{"rungs": (10, 30), "reduction_factor": 3, **changes})
    for trial in range(num_trials):
        rule.begin(trial)
    return rule


def _kept(decisions: dict[int, Any]) -> list[int]:
    return sorted(trial for trial, decision in decisions.items() if decision.verdict is KEEP)


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
    assert rule.submit(10, [(0, value)])[0].verdict is STOP
    assert _kept(rule.submit(10, [(1, 5.0), (2, 6.0), (3, 7.0)])) == [1, 2]  # 4 at the rung, so 2 go on


def test_the_first_to_arrive_passes_and_the_next_ones_are_compared_with_it() -> None:
    rule = _rule(3)
    assert rule.submit(10, [(0, 1.0)])[0].verdict is KEEP
    assert rule.submit(10, [(1, 2.0)])[1].verdict is STOP
    assert rule.submit(10, [(2, 0.5)])[2].verdict is KEEP


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
        rule.end(trial, diverged=True)
    assert _kept(rule.submit(10, [(2, 1.0), (3, 2.0)])) == [2, 3]  # 4 at the rung, so 2 go on


def test_a_trial_that_ends_otherwise_does_not_count() -> None:
    rule = _rule(4)
    for trial in (0, 1):
        rule.end(trial)
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
        whole.end(trial)
    whole.end(kept[-1], diverged=True)

    observed: dict[int, dict[int, float]] = {trial: {} for trial in range(20)}
    observed |= {trial: {10: values[trial][10]} for trial in range(12)}
    observed |= {trial: {10: values[trial][10], 15: 0.0} for trial in kept}
    restored = SuccessiveHalving((10, 30), reduction_factor=3)
    restored.restore(observed, ended=dict.fromkeys(stopped, False) | {kept[-1]: True})

    for rule in (whole, restored):
        assert _kept(rule.submit(10, [(kept[0], values[kept[0]][10])])) == [kept[0]]
    rest = [(trial, values[trial][10]) for trial in range(12, 20)]
    assert whole.submit(10, rest) == restored.submit(10, rest)
    at_the_end = [(trial, values[trial][30]) for trial in kept[:-1]]
    assert whole.submit(30, at_the_end) == restored.submit(30, at_the_end)


# Deterministic mode


class _Lanes:
    """A toy driver: so many lanes whose trials advance one rung at a time, in a random order.

    Trial 3 reports NaN at the first rung and trial 5 diverges before it.
    """

    def __init__(self, *, order_seed: int, num_trials: int, num_lanes: int, restart_every: int | None = None) -> None:
        self._generator = random.Random(order_seed)
        self._num_lanes = num_lanes
        self._restart_every = restart_every
        self._ahead = list(range(num_trials))
        self._running: list[int] = []
        self._passed: dict[int, int] = {}
        self._reported: dict[int, dict[int, float]] = {}
        self._rule = SuccessiveHalving((10, 30), reduction_factor=3, deterministic=True)
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
        self._rule = SuccessiveHalving((10, 30), reduction_factor=3, deterministic=True)
        self._rule.restore(self._reported, ended={trial: end == "diverged" for trial, end in self.ends.items()})

    def _advance(self, trial: int) -> None:
        """Take a trial to its next rung, or ask again at the one where it waits."""
        num_passed = self._passed.get(trial, 0)
        if trial == 5:
            self._end(trial, "diverged")
        elif num_passed == 2:
            self._end(trial, "completed")
        else:
            rung = (10, 30)[num_passed]
            value = math.nan if (trial, rung) == (3, 10) else math.sin(trial * (1.7 + rung))
            self._reported[trial][rung] = value
            verdict = self._rule.submit(rung, [(trial, value)])[trial].verdict
            if verdict is KEEP:
                self._passed[trial] = num_passed + 1
            elif verdict is STOP:
                self._end(trial, f"stopped at {rung}")

    def _end(self, trial: int, how: str) -> None:
        self.ends[trial] = how
        self._running.remove(trial)
        self._rule.end(trial, diverged=how == "diverged")


def test_in_deterministic_mode_the_order_of_arrival_changes_nothing() -> None:
    lanes = [(0, 1), (1, 3), (2, 5), (3, 20), (4, 20)]
    outcomes = [_Lanes(order_seed=seed, num_trials=20, num_lanes=num_lanes).run() for seed, num_lanes in lanes]
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert set(outcomes[0].values()) == {"completed", "stopped at 10", "stopped at 30", "diverged"}


def test_in_the_other_mode_it_does_which_shows_that_the_test_above_can_fail() -> None:
    def survivors(order: list[int]) -> list[int]:
        rule = _rule(9)
        return _kept({trial: rule.submit(10, [(trial, float(trial))])[trial] for trial in order})

    assert survivors(list(range(9))) != survivors(list(reversed(range(9))))


def test_in_deterministic_mode_a_restart_changes_nothing() -> None:
    plain = _Lanes(order_seed=1, num_trials=20, num_lanes=4).run()
    assert _Lanes(order_seed=2, num_trials=20, num_lanes=4, restart_every=7).run() == plain


def test_a_trial_waits_for_lower_numbers_and_is_resolved_when_they_have_come_or_ended() -> None:
    rule = _rule(3, deterministic=True)
    decision = rule.submit(10, [(2, 0.5)])[2]
    assert (decision.verdict, decision.reason) == (WAIT, "at step 10, for trials [0, 1]")
    assert rule.resolve() == {}
    assert rule.submit(10, [(0, 1.0)])[0].verdict is KEEP
    assert rule.resolve() == {}
    rule.end(1)
    assert {trial: decision.verdict for trial, decision in rule.resolve().items()} == {2: KEEP}
    assert rule.resolve() == {}


def test_the_lowest_live_trial_never_waits() -> None:
    rule = _rule(5, deterministic=True)
    rule.end(0)
    rule.end(1, diverged=True)
    assert rule.submit(10, [(2, 0.5)])[2].verdict is not WAIT


def test_a_trial_that_diverged_at_a_rung_loses_there_and_not_at_the_next_one_after_a_restart() -> None:
    """Live, its last report is never submitted; restored, it filled the rung and NaN went into the one above."""
    live = SuccessiveHalving((20, 40), reduction_factor=3, deterministic=True)
    for trial in range(4):
        live.begin(trial)
    live.submit(20, [(0, 1.0), (1, 2.0), (2, 3.0)])
    live.end(3, diverged=True)
    live.submit(40, [(0, 1.0)])

    restored = SuccessiveHalving((20, 40), reduction_factor=3, deterministic=True)
    reports = {0: {20: 1.0, 40: 1.0}, 1: {20: 2.0}, 2: {20: 3.0}, 3: {20: float("nan")}}
    restored.restore(reports, ended={3: True})
    for rule in (live, restored):
        rule.begin(4)
    assert live.submit(20, [(4, 2.5)])[4].reason == restored.submit(20, [(4, 2.5)])[4].reason
    for trial in (1, 2):
        for rule in (live, restored):
            rule.end(trial)
    assert live.submit(40, [(4, 2.5)])[4].reason == restored.submit(40, [(4, 2.5)])[4].reason
