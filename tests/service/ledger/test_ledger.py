"""The ledger's laws: one sequence without gaps, the fence, nothing doubled, nothing lost."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState, TrialState
from spectune.service.errors import CampaignNotFoundError, FencedError, IllegalTransitionError, LedgerError
from spectune.service.ledger import Ledger, entries
from spectune.service.ledger.recovery import import_earlier_spools
from spectune.service.ledger.spool import Record, Spool

SPECIFICATION = {"name": "test", "arms": []}


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    with Ledger(database) as ledger:
        ledger.create_campaign("c", name="test", specification=SPECIFICATION)
        yield ledger


def created(trial: int) -> Record:
    return entries.trial_created(
        trial=trial, arm=0, point=trial, seed_index=0, config={"lr": 0.1}, ask={"unit": [0.5]}, at=1
    )


def observed(trial: int, step: int, value: float = 1.0) -> Record:
    return entries.observation(
        trial=trial, step=step, metrics={"loss": value}, objective=value, device_seconds=0.5, produced_at=step
    )


def numbered(records: list[Record], *, start: int = 1) -> list[tuple[int, Record]]:
    return list(enumerate(records, start=start))


def sequences(ledger: Ledger) -> list[int]:
    return [change.sequence for change in ledger.changes("c", after=0, limit=10_000)]


def test_a_new_campaign_is_queued_and_told(ledger: Ledger) -> None:
    campaign = ledger.campaign("c")
    assert (campaign.state, campaign.attempt, campaign.sequence) == (CampaignState.QUEUED, 0, 1)
    assert campaign.specification == SPECIFICATION


def test_a_campaign_id_is_given_once(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match=r"UNIQUE constraint failed|duplicate key"):
        ledger.create_campaign("c", name="again", specification=SPECIFICATION)


def test_an_unknown_campaign_is_an_error_with_its_id(ledger: Ledger) -> None:
    with pytest.raises(CampaignNotFoundError, match="got 'nobody'"):
        ledger.campaign("nobody")
    with pytest.raises(CampaignNotFoundError, match="got 'nobody'"):
        ledger.begin_attempt("nobody")


def test_an_illegal_move_raises_with_the_story_and_changes_nothing(ledger: Ledger) -> None:
    ledger.move_campaign("c", CampaignEvent.LAUNCH, reason="launching")
    before = ledger.campaign("c")
    with pytest.raises(IllegalTransitionError, match=r"STARTING \(launching\).*got succeed"):
        ledger.move_campaign("c", CampaignEvent.SUCCEED, reason="x")
    assert ledger.campaign("c") == before


def test_sequence_numbers_have_no_gap_and_end_at_the_campaigns_own(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt("c")
    ledger.append("c", attempt, numbered([created(0), observed(0, 10), observed(0, 10), observed(0, 20)]))
    assert sequences(ledger) == list(range(1, ledger.campaign("c").sequence + 1))


def test_an_observation_is_kept_once_and_the_first_wins(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt("c")
    ledger.append("c", attempt, numbered([created(0), observed(0, 10, 1.0), observed(0, 10, 2.0)]))
    assert [(o.step, o.metrics) for o in ledger.observations("c")] == [(10, {"loss": 1.0})]
    (trial,) = ledger.trials("c")
    assert (trial.last_step, trial.objective, trial.device_seconds) == (10, 1.0, 1.0)


def test_entering_a_batch_again_adds_nothing(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt("c")
    batch = numbered([created(0), observed(0, 10)])
    ledger.append("c", attempt, batch)
    before = (ledger.campaign("c"), ledger.trials("c"))
    ledger.append("c", attempt, batch)
    assert (ledger.campaign("c"), ledger.trials("c")) == before


@pytest.mark.parametrize("size", [2, 5, 1000])
def test_records_entered_in_bulk_give_what_they_give_one_by_one(tmp_path: Path, size: int) -> None:
    records = _story(random.Random(size), num_trials=7, num_records=200)
    books = []
    for piece in (1, size):
        with Ledger.at(tmp_path / f"{piece}.sqlite") as ledger:
            ledger.create_campaign("c", name="test", specification=SPECIFICATION)
            attempt, pairs = ledger.begin_attempt("c"), numbered(records)
            for start in range(0, len(pairs), piece):
                ledger.append("c", attempt, pairs[start : start + piece])
            changes = list(ledger.changes("c", after=0, limit=10_000))
            books.append((ledger.trials("c"), ledger.observations("c"), changes[2:]))
    assert repr(books[0]) == repr(books[1])  # NaN is not equal to itself
    assert any(trial.num_losses for trial in books[0][0]), "the story must have losses that count"


def _story(dice: random.Random, *, num_trials: int, num_records: int) -> list[Record]:
    """Draw records of every kind about a few trials, with steps that come twice."""
    story = [created(0)]
    for at in range(num_records):
        known = len([record for record in story if record["kind"] == "trial_created"])
        trial = dice.randrange(known)
        makers: list[Callable[[], Record]] = [
            partial(observed, trial, dice.randrange(1, 30), dice.choice([1.0, math.nan])),
            partial(entries.trial_moved, trial=trial, state=TrialState.RUNNING, reason=f"r{at}", at=at),
            partial(entries.trial_lost, trial=trial, message="killed", at=at),
            partial(entries.device_seconds, trial=trial, seconds=0.25, at=at),
            partial(entries.planned, trial=trial, arm=0, plan={"members": 4}, at=at),
        ]
        if known < num_trials:
            makers.append(partial(created, known))
        story.append(dice.choice(makers)())
    return story


def test_a_batch_that_overlaps_enters_only_what_is_new(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt("c")
    records = [created(0), observed(0, 10), observed(0, 20)]
    ledger.append("c", attempt, numbered(records[:2]))
    ledger.append("c", attempt, numbered(records))
    assert [o.step for o in ledger.observations("c")] == [10, 20]


def test_an_older_attempt_is_fenced_and_writes_nothing(ledger: Ledger) -> None:
    old = ledger.begin_attempt("c")
    ledger.begin_attempt("c")
    before = ledger.campaign("c")
    with pytest.raises(FencedError, match="attempt 2 has taken over: got attempt 1"):
        ledger.append("c", old, numbered([created(0)]))
    with pytest.raises(FencedError):
        ledger.move_campaign("c", CampaignEvent.LAUNCH, reason="x", attempt=old)
    assert ledger.campaign("c") == before
    assert ledger.trials("c") == []


def test_an_attempt_is_claimed_once(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt("c")
    ledger.claim_attempt("c", attempt)
    with pytest.raises(FencedError, match="claimed already: got 1"):
        ledger.claim_attempt("c", attempt)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_come_back_as_they_were(ledger: Ledger, value: float) -> None:
    attempt = ledger.begin_attempt("c")
    ledger.append("c", attempt, numbered([created(0), observed(0, 10, value)]))
    assert repr(ledger.observations("c")[0].metrics["loss"]) == repr(value)
    assert repr(ledger.trials("c")[0].objective) == repr(value)


def test_a_lost_worker_is_counted_until_the_next_observation(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt("c")
    lost = entries.trial_lost(trial=0, message="killed", at=2)
    ledger.append("c", attempt, numbered([created(0), lost, lost]))
    assert (ledger.trials("c")[0].num_losses, ledger.trials("c")[0].state) == (2, TrialState.PENDING)
    ledger.append("c", attempt, numbered([observed(0, 10)], start=4))
    assert ledger.trials("c")[0].num_losses == 0


def test_the_next_attempt_imports_what_the_spool_knows_and_the_ledger_does_not(ledger: Ledger, tmp_path: Path) -> None:
    first = ledger.begin_attempt("c")
    records = [created(0), observed(0, 10), observed(0, 20)]
    with Spool(tmp_path / "spool-1") as spool:
        spool.append(records)
    ledger.append("c", first, numbered(records[:2]))
    second = ledger.begin_attempt("c")
    for _ in range(2):
        import_earlier_spools(ledger, "c", attempt=second, spool=lambda _, number: tmp_path / f"spool-{number}")
    assert [(o.step, o.attempt) for o in ledger.observations("c")] == [(10, 1), (20, 1)]


def test_moving_open_trials_moves_those_that_have_not_ended_and_no_others(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt("c")
    done = entries.trial_moved(trial=0, state=TrialState.COMPLETED, reason="end_of_schedule", at=2)
    ledger.append("c", attempt, numbered([created(0), created(1), done]))
    ledger.move_open_trials("c", TrialState.CANCELLED, reason="campaign_cancelled")
    assert [t.state for t in ledger.trials("c")] == [TrialState.COMPLETED, TrialState.CANCELLED]
    assert sequences(ledger) == list(range(1, ledger.campaign("c").sequence + 1))


def test_a_reader_never_skips_a_change_while_a_writer_commits(database: str, ledger: Ledger) -> None:
    """Events and observations stand in two tables: read one after the other they could be torn by a commit between."""
    attempt = ledger.begin_attempt("c")
    ledger.append("c", attempt, numbered([created(0)]))
    moved = entries.trial_moved(trial=0, state=TrialState.RUNNING, reason="assigned", at=2)
    num_rounds = 60

    def write() -> None:
        for number in range(num_rounds):
            batch = [observed(0, number + 1), moved]
            ledger.append("c", attempt, numbered(batch, start=2 + 2 * number))

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[int] = []
    with Ledger(database) as reader:
        while writer.is_alive() or (seen[-1] if seen else 0) < ledger.campaign("c").sequence:
            seen += [change.sequence for change in reader.changes("c", after=seen[-1] if seen else 0, limit=7)]
    writer.join()
    assert seen == list(range(1, ledger.campaign("c").sequence + 1))


def test_cursors_remember_how_far_each_tracker_is(ledger: Ledger) -> None:
    assert ledger.cursor("mlflow", "c") == 0
    ledger.set_cursor("mlflow", "c", 5)
    ledger.set_cursor("mlflow", "c", 7)
    assert (ledger.cursor("mlflow", "c"), ledger.cursor("other", "c")) == (7, 0)


def test_a_database_that_cannot_be_opened_is_an_error_with_its_address(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"missing/ledger\.sqlite"):
        Ledger.at(tmp_path / "missing" / "ledger.sqlite")


def test_a_file_that_is_no_database_is_an_error_with_its_address(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("not a database, but long enough to be read as one", encoding="utf-8")
    with pytest.raises(LedgerError, match=r"file is not a database.*ledger\.sqlite"):
        Ledger.at(tmp_path / "ledger.sqlite")


def test_a_ledger_of_a_later_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    Ledger.at(tmp_path / "ledger.sqlite").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(LedgerError, match="9999"):
        Ledger.at(tmp_path / "ledger.sqlite")


def test_many_that_open_a_new_ledger_at_once_all_get_it(database: str) -> None:
    """A watcher opened the ledger while `run` was making its tables: "table campaigns already exists"."""
    opened: list[Ledger] = []
    threads = [threading.Thread(target=lambda: opened.append(Ledger(database))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 8
    for ledger in opened:
        assert ledger.campaigns() == []
        ledger.close()


def test_spans_of_attempts_end_where_they_ended_or_were_last_heard_of(tmp_path: Path) -> None:
    times = iter(range(0, 10_000, 10))
    with Ledger.at(tmp_path / "spans.sqlite") as unclocked:
        assert unclocked.attempt_spans("c", before=9) == {}
    with Ledger(f"sqlite:///{tmp_path / 'spans.sqlite'}", now=lambda: next(times)) as ledger:
        ledger.create_campaign("c", name="test", specification=SPECIFICATION)
        for number in (1, 2, 3, 4):
            ledger.begin_attempt("c")
            if number != 2:  # nobody claimed it
                ledger.claim_attempt("c", number)
        ledger.end_attempt("c", 1, exit_code=0)
        ledger.beat("c", 3)
        spans = ledger.attempt_spans("c", before=4)
    assert list(spans) == [1, 3]
    assert all(claimed < ended for claimed, ended in spans.values())
