"""Many writers at once: the fence holds and the sequence has no gaps, on either database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState
from spectune.service.errors import FencedError, IllegalTransitionError, LedgerError
from spectune.service.ledger import Ledger, entries

NUM_THREADS = 6


def at_once(what: Callable[[int], None]) -> None:
    """Call something from many threads, released together."""
    gate = threading.Barrier(NUM_THREADS)

    def run(number: int) -> None:
        gate.wait()
        what(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def ledgers(database: str) -> list[Ledger]:
    """Open a ledger of its own for each thread, as processes have."""
    opened = [Ledger(database) for _ in range(NUM_THREADS)]
    opened[0].create_campaign("c", name="test", specification={})
    return opened


def close(ledgers: list[Ledger]) -> None:
    for ledger in ledgers:
        ledger.close()


def test_of_many_that_claim_an_attempt_one_gets_it(ledgers: list[Ledger]) -> None:
    attempt = ledgers[0].begin_attempt("c")
    outcomes: list[str] = []

    def claim(number: int) -> None:
        try:
            ledgers[number].claim_attempt("c", attempt)
            outcomes.append("claimed")
        except FencedError:
            outcomes.append("fenced")

    at_once(claim)
    assert sorted(outcomes) == ["claimed"] + ["fenced"] * (NUM_THREADS - 1)
    close(ledgers)


def test_of_many_that_launch_a_campaign_one_moves_it(ledgers: list[Ledger]) -> None:
    moved: list[CampaignState] = []

    def launch(number: int) -> None:
        with suppress(IllegalTransitionError):
            moved.append(ledgers[number].move_campaign("c", CampaignEvent.LAUNCH, reason="launching"))

    at_once(launch)
    assert moved == [CampaignState.STARTING]
    close(ledgers)


def test_attempts_that_overtake_each_other_leave_no_gap_and_no_write_of_a_fenced_one(ledgers: list[Ledger]) -> None:
    def take_over_and_write(number: int) -> None:
        ledger = ledgers[number]
        attempt = ledger.begin_attempt("c")
        try:
            for position in range(1, 9):
                trial = number * 100 + position
                created = entries.trial_created(
                    trial=trial, arm=0, point=trial, seed_index=0, config={}, ask={}, at=attempt
                )
                ledger.append("c", attempt, [(position, created)])
        except FencedError:
            pass

    at_once(take_over_and_write)
    changes = ledgers[0].changes("c", after=0, limit=10_000)
    assert [change.sequence for change in changes] == list(range(1, ledgers[0].campaign("c").sequence + 1))
    assert max(trial.attempt for trial in ledgers[0].trials("c")) == NUM_THREADS
    began = {change.body["attempt"]: change.sequence for change in changes if change.kind == "attempt_began"}
    for change in changes:
        if change.kind == "trial_created":
            later = [began[attempt] for attempt in began if attempt > change.at]
            assert all(change.sequence < taken_over for taken_over in later)
    close(ledgers)


def test_a_password_is_not_told_with_an_error() -> None:
    with pytest.raises(LedgerError, match=r"got postgresql\+psycopg://me:\*\*\*@127\.0\.0\.1:1/nothing"):
        Ledger("postgresql://me:secret@127.0.0.1:1/nothing")
    with pytest.raises(LedgerError, match=r"got mysql://me:\*\*\*@localhost/x"):
        Ledger("mysql://me:secret@localhost/x")
    with pytest.raises(LedgerError, match="got an address that cannot be read"):
        Ledger("a secret, but no address")
