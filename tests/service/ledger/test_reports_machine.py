"""Campaigns and trials under reports that come late, twice, in the wrong order, or from attempts that are over.

A model in plain dictionaries is what the ledger must hold after every step, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import itertools
import math
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from spectune.service.campaign.analysis.leaderboard import leaderboard
from spectune.service.campaign.analysis.live_leaderboard import LiveLeaderboard
from spectune.service.campaign.model.lifecycle import CAMPAIGN_TRANSITIONS, CampaignEvent, CampaignState, TrialState
from spectune.service.errors import FencedError, IllegalTransitionError
from spectune.service.ledger import ServiceLedger, entries
from spectune.service.ledger.spool import Record

EXAMPLES = 150 if os.environ.get("SPECTUNE_FAULTS") else 6
NUM_TRIALS = 4
values = st.sampled_from([1.0, -2.5, 1e300, math.nan, math.inf, -math.inf])
names = itertools.count()


def machine(ledger: ServiceLedger) -> type[RuleBasedStateMachine]:
    """Make the machine over a ledger, which every run shares; each run has a campaign of its own."""

    class Reports(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.name = f"c{next(names)}"
            ledger.submit(self.name, name="x", specification={}, owner="me")
            self.state = CampaignState.QUEUED
            self.attempt = 0
            self.claimed = True
            self.sent: dict[int, list[Record]] = {0: []}  # what each attempt has on its spool, in order
            self.held: dict[int, int] = {0: 0}
            self.trials: dict[int, TrialState] = {}
            self.reports: dict[tuple[int, int], float] = {}
            self.charged = 0.0
            self.board, self.looked_at = LiveLeaderboard(num_arms=1, mode="minimize"), 0

        # What happens to the campaign

        @rule(event=st.sampled_from(CampaignEvent))
        def move(self, event: CampaignEvent) -> None:
            allowed = CAMPAIGN_TRANSITIONS[event].get(self.state)
            try:
                moved = ledger.move_campaign(self.name, event, reason="test")
            except IllegalTransitionError:
                assert allowed is None
            else:
                assert moved is allowed
                self.state = moved

        @rule()
        def begin_attempt(self) -> None:
            self.attempt = ledger.begin_attempt(self.name)
            self.sent[self.attempt], self.held[self.attempt], self.claimed = [], 0, False

        @precondition(lambda self: self.attempt > 0)
        @rule(attempt=st.integers(1, 5))
        def claim(self, attempt: int) -> None:
            try:
                ledger.claim_attempt(self.name, attempt)
            except FencedError:
                assert attempt != self.attempt or self.claimed
            else:
                assert attempt == self.attempt
                assert not self.claimed
                self.claimed = True

        # What drivers report

        @precondition(lambda self: self.attempt > 0)
        @rule(number=st.integers(0, NUM_TRIALS - 1))
        def create(self, number: int) -> None:
            if number in self.trials:
                return
            self.trials[number] = TrialState.PENDING
            place: dict[str, Any] = {"arm": 0, "point": number, "seed_index": 0, "config": {}, "ask": {}}
            self.send([entries.trial_created(trial=number, at=1, **place)])

        @precondition(lambda self: self.attempt > 0)
        @rule(reports=st.lists(st.tuples(st.integers(0, NUM_TRIALS - 1), st.integers(1, 5), values), max_size=4))
        def report(self, reports: list[tuple[int, int, float]]) -> None:
            """Steps come in any order, and more than once: the first report of a step is the one that counts."""
            known = [each for each in reports if each[0] in self.trials]
            for number, step, value in known:
                self.reports.setdefault((number, step), value)
                self.charged += 0.5
            self.send([observed(*each) for each in known])

        @precondition(lambda self: self.attempt > 0)
        @rule(number=st.integers(0, NUM_TRIALS - 1), state=st.sampled_from(TrialState))
        def move_trial(self, number: int, state: TrialState) -> None:
            if number in self.trials:
                self.trials[number] = state
                self.send([entries.trial_moved(trial=number, state=state, reason="test", message="", at=2)])

        def send(self, records: list[Record]) -> None:
            spool = self.sent[self.attempt]
            spool += records
            ledger.append(self.name, self.attempt, list(enumerate(spool, start=1))[len(spool) - len(records) :])
            self.held[self.attempt] = len(spool)

        @precondition(lambda self: self.attempt > 0)
        @rule(of=st.integers(1, 5), begin=st.integers(0, 10), length=st.integers(0, 10))
        def send_again(self, of: int, begin: int, length: int) -> None:
            """Any piece of any attempt's spool arrives once more, brought by the attempt that writes now."""
            if of in self.sent:
                piece = list(enumerate(self.sent[of], start=1))[begin : begin + length]
                ledger.append(self.name, self.attempt, piece, spool_of=of)

        @precondition(lambda self: self.attempt > 1)
        @rule(behind=st.integers(1, 3), value=values)
        def send_too_late(self, behind: int, value: float) -> None:
            """An attempt that is over reports what nobody has heard of: it is told to end, and nothing is written."""
            late = max(1, self.attempt - behind)
            position = len(self.sent[late]) + 1
            try:
                ledger.append(self.name, late, [(position, observed(0, 99, value))])
            except FencedError:
                return
            raise AssertionError(f"attempt {late} may not write while {self.attempt} does")

        # Who looks on

        @rule()
        def look_at_the_standings(self) -> None:
            """Now and then, after much or little has happened: what is kept up to date is what is ranked anew."""
            sequence = ledger.campaign(self.name).sequence
            self.board.update(ledger.outcomes(self.name, after=self.looked_at))
            self.looked_at = sequence
            assert self.board.standings() == leaderboard(ledger.trials(self.name), num_arms=1, mode="minimize")

        # What must hold

        @invariant()
        def the_ledger_holds_what_was_reported_once(self) -> None:
            found = {(each.trial, each.step): each.metrics["loss"] for each in ledger.observations(self.name)}
            assert {key: repr(value) for key, value in found.items()} == {
                key: repr(value) for key, value in self.reports.items()
            }

        @invariant()
        def trials_stand_where_their_furthest_report_is(self) -> None:
            trials = {each.number: each for each in ledger.trials(self.name)}
            assert {number: each.state for number, each in trials.items()} == self.trials
            for number, trial in trials.items():
                last = max((step for of, step in self.reports if of == number), default=0)
                assert (trial.last_step, repr(trial.objective)) == (last, repr(self.reports.get((number, last))))
            assert sum(each.device_seconds for each in trials.values()) == self.charged

        @invariant()
        def what_happened_is_numbered_without_a_gap(self) -> None:
            campaign = ledger.campaign(self.name)
            assert (campaign.state, campaign.attempt) == (self.state, self.attempt)
            told = [each.sequence for each in ledger.changes(self.name, after=0, limit=10_000)]
            assert told == list(range(1, campaign.sequence + 1))

        @invariant()
        def each_spool_is_held_to_its_end(self) -> None:
            for attempt in range(1, self.attempt + 1):
                assert ledger.spool_position(self.name, attempt) == self.held[attempt]

    return Reports


def observed(number: int, step: int, value: float) -> Record:
    return entries.observation(
        trial=number, step=step, metrics={"loss": value}, objective=value, device_seconds=0.5, produced_at=1
    )


@pytest.mark.timeout(1800)  # at its full size, on a busy machine
def test_the_ledger_is_what_the_model_is_whatever_comes(database: str) -> None:
    with ServiceLedger(database) as ledger:
        run_state_machine_as_test(
            machine(ledger),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=20,
                deadline=None,
                database=None,
                phases=[Phase.explicit, Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
