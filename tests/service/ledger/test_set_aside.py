"""What no database will ever hold is set aside with its reason; everything else is entered, once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.errors import LedgerError
from spectune.service.ledger import ServiceLedger, entries
from spectune.service.ledger.set_aside import SPOOL
from spectune.service.ledger.spool import Record, Spool, read

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from(["\x00", "\ud800", "NaN", "a" * 70, "RUNNING"])
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
FIELDS = ("trial", "arm", "point", "seed_index", "config", "ask", "state", "reason", "message", "step", "metrics")
MORE = ("objective", "device_seconds", "plan", "to", "check", "at", "execution")
KINDS = ("trial_created", "trial_moved", "trial_lost", "observation", "device_seconds", "planned", "shrunk")


@st.composite
def near_records(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a record of a known kind in which some fields hold anything, or lack."""
    good: dict[str, Any] = {
        **{"trial": 0, "arm": 0, "point": 0, "seed_index": 0, "config": {}, "ask": {}, "state": "RUNNING"},
        **{"reason": "x", "message": "", "step": 1, "metrics": {"loss": 1.0}, "objective": 1.0, "device_seconds": 1.0},
        **{"plan": {}, "to": {}, "check": {}, "at": 1},
    }
    record = {"kind": draw(st.sampled_from(KINDS)), **good}
    for name in draw(st.lists(st.sampled_from((*FIELDS, *MORE)), min_size=1, max_size=3)):
        record[name] = draw(JSON)
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=1)):
        record.pop(name, None)
    return record


@pytest.fixture
def ledger(database: str) -> Iterator[ServiceLedger]:
    with ServiceLedger(database) as ledger:
        yield ledger


NUMBERS = iter(range(10**9))


def began(ledger: ServiceLedger) -> str:
    campaign_id = f"c{next(NUMBERS)}"
    ledger.create_campaign(campaign_id, name="x", specification={})
    assert ledger.begin_attempt(campaign_id) == 1
    return campaign_id


def created(trial: int) -> Record:
    return entries.trial_created(trial=trial, arm=0, point=trial, seed_index=0, config={}, ask={}, at=1)


def observed(trial: int, step: int) -> Record:
    values: dict[str, Any] = {"metrics": {"loss": 1.0}, "objective": 1.0, "device_seconds": 0.5, "produced_at": 2}
    return entries.observation(trial=trial, step=step, **values)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(poison=st.lists(JSON | near_records(), min_size=1, max_size=4), data=st.data())
def test_anything_between_good_entries_loses_none_of_them(
    ledger: ServiceLedger, poison: list[Any], data: st.DataObject
) -> None:
    mine, other = began(ledger), began(ledger)
    good = [created(100), observed(100, 1), created(101), observed(100, 2), observed(101, 7)]
    mixed: list[Any] = list(good)
    for each in poison:
        mixed.insert(data.draw(st.integers(0, len(mixed))), each)
    ledger.append(mine, 1, list(enumerate(mixed, start=1)))
    ledger.append(other, 1, [(1, created(0))])
    assert ledger.spool_position(mine, 1) == len(mixed)
    assert {(each.trial, each.step) for each in ledger.observations(mine)} >= {(100, 1), (100, 2), (101, 7)}
    assert {each.number for each in ledger.trials(mine)} >= {100, 101}
    assert [each.number for each in ledger.trials(other)] == [0]
    aside = ledger.dead_letters(SPOOL, mine)
    assert len(ledger.events(mine, "set_aside")) >= len(aside)
    for each in aside:
        assert each.error
        json.dumps([each.content, each.error]).encode()
    sequences = [each.sequence for each in ledger.changes(mine, after=0, limit=1000)]
    assert sequences == list(range(1, ledger.campaign(mine).sequence + 1))
    for trial in ledger.trials(mine):  # what was entered can be shown
        json.dumps([dict(trial.config), trial.message, trial.reason], ensure_ascii=False).encode()


POISON: dict[str, Any] = {
    "half a surrogate pair": {**created(5), "config": {"choice": "\ud800"}},
    "NUL in a message": {**entries.trial_moved(trial=1, state=TrialState.FAILED, reason="x", at=1), "message": "\0"},
    "a trial that is not there": observed(77, 1),
    "a number beyond integers": {**observed(1, 1), "step": 2**70},
    "a word for a number": {**observed(1, 1), "step": "3"},
    "a state that is none": {**entries.trial_moved(trial=1, state=TrialState.FAILED, reason="x", at=1), "state": "UP"},
    "a trial twice": created(1),
    "no mapping": [1, 2],
    "no kind": {"trial": 1},
    "a list for a kind": {"kind": ["observation"]},
    "a depth without end": {**created(6), "config": {"a": json.loads("[" * 200 + "]" * 200)}},
}


@pytest.mark.parametrize("name", POISON)
def test_each_poison_is_kept_with_its_reason_and_told_as_an_event(ledger: ServiceLedger, name: str) -> None:
    campaign_id = began(ledger)
    ledger.append(campaign_id, 1, [(1, created(1)), (2, POISON[name]), (3, observed(1, 9))])
    (letter,) = ledger.dead_letters(SPOOL, campaign_id)
    assert letter.content.startswith("entry 2 of attempt 1: ")
    (event,) = ledger.events(campaign_id, "set_aside")
    assert "entry 2 of attempt 1 cannot be entered, and is set aside: " in event.body["message"]
    assert [(each.trial, each.step) for each in ledger.observations(campaign_id)] == [(1, 9)]
    assert ledger.num_set_aside([campaign_id, "other"]) == {campaign_id: 1}
    assert ledger.num_buried(SPOOL) == 1
    ledger.append(campaign_id, 1, [(1, created(1)), (2, POISON[name]), (3, observed(1, 9))])  # harmless when repeated
    assert len(ledger.dead_letters(SPOOL, campaign_id)) == 1


def test_text_of_a_users_code_is_entered_clean(ledger: ServiceLedger) -> None:
    campaign_id, text = began(ledger), "RuntimeError: cannot read " + os.fsdecode(b"caf\xe9.bin\x00")
    moves = [
        created(1),
        entries.trial_lost(trial=1, message=text, at=2),
        entries.trial_moved(trial=1, state=TrialState.FAILED, reason="user_code", message=text * 2_000_000, at=3),
        entries.quarantined(trial=1, message=text, at=4),
        entries.shrunk(trial=1, arm=0, num_members=1, message=text, at=5),
    ]
    ledger.append(campaign_id, 1, list(enumerate(moves, start=1)))
    assert ledger.dead_letters(SPOOL, campaign_id) == []
    (trial,) = ledger.trials(campaign_id)
    assert trial.message.startswith(r"RuntimeError: cannot read caf\udce9.bin\x00")
    assert len(trial.message.encode()) < 70_000


def test_a_database_that_is_away_is_no_reason_to_set_anything_aside(
    ledger: ServiceLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    campaign_id = began(ledger)

    def full(*_: Any, **__: Any) -> int:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr("spectune.service.ledger.entries.enter", full)
    with pytest.raises(LedgerError, match="disk is full"):
        ledger.append(campaign_id, 1, [(1, created(1))])
    monkeypatch.undo()
    assert ledger.spool_position(campaign_id, 1) == 0
    ledger.append(campaign_id, 1, [(1, created(1))])
    assert len(ledger.trials(campaign_id)) == 1
    assert ledger.dead_letters(SPOOL, campaign_id) == []


def test_a_damaged_line_of_a_spool_is_set_aside_and_the_rest_entered(ledger: ServiceLedger, tmp_path: Any) -> None:
    campaign_id, path = began(ledger), tmp_path / "spool-1.jsonl"
    with Spool(path) as spool:
        spool.append([created(1), created(2), created(3)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\xff\xfe garbage \x00\n" + lines[2])
    ledger.append(campaign_id, 1, list(read(path)))
    assert [each.number for each in ledger.trials(campaign_id)] == [1, 3]
    (letter,) = ledger.dead_letters(SPOOL, campaign_id)
    assert "the spool is damaged at byte" in letter.error
