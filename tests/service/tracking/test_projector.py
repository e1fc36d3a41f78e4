"""The projector tells a tracker everything that the ledger holds, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spectune.service.campaign.model.lifecycle import CampaignEvent, TrialState
from spectune.service.campaign.model.records import Refusal
from spectune.service.ledger import Ledger, entries
from spectune.service.ledger.spool import Record
from spectune.service.tracking.projector import Projector
from tests.fakes.tracker import FakeTracker, TrackerDownError

NUM_TRIALS, NUM_STEPS = 3, 4
SPECIFICATION: dict[str, Any] = {"arms": [{"name": "muon"}], "objective": {"mode": "minimize"}}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with one campaign that has succeeded."""
    with Ledger.at(tmp_path / "ledger.sqlite") as ledger:
        ledger.create_campaign("c", name="test", specification=SPECIFICATION)
        attempt = ledger.begin_attempt("c")
        ledger.move_campaign("c", CampaignEvent.LAUNCH, reason="launching")
        ledger.move_campaign("c", CampaignEvent.CLAIM, reason="driver_started")
        ledger.append("c", attempt, list(enumerate(_records(), start=1)))
        ledger.move_campaign("c", CampaignEvent.SUCCEED, reason="all_trials_ended")
        yield ledger


def _records() -> list[Record]:
    records: list[Record] = []
    for trial in range(NUM_TRIALS):
        place = {"arm": 0, "point": trial, "seed_index": 0, "config": {}, "ask": {}}
        records.append(entries.trial_created(trial=trial, at=1, **place))  # type: ignore[arg-type]
        for step in range(1, NUM_STEPS + 1):
            values = {"metrics": {"loss": float(step), "lr": 0.1}, "objective": 10.0 * trial + step}
            records.append(
                entries.observation(trial=trial, step=step, device_seconds=0.5, produced_at=step, **values)  # type: ignore[arg-type]
            )
        records.append(entries.trial_moved(trial=trial, state=TrialState.COMPLETED, reason="end_of_schedule", at=9))
    return records


def assert_complete(tracker: FakeTracker) -> None:
    assert tracker.campaign_states == {"c": "SUCCEEDED"}
    assert tracker.trial_states == dict.fromkeys(range(NUM_TRIALS), "COMPLETED")
    assert {trial: len(points) for trial, points in tracker.points.items()} == dict.fromkeys(range(NUM_TRIALS), 8)


def test_everything_arrives_with_a_summary_of_the_campaign(ledger: Ledger) -> None:
    tracker = FakeTracker()
    Projector(ledger, tracker, "c").catch_up()
    assert_complete(tracker)
    summary = tracker.summaries["c"]
    assert summary["best"] == 4.0
    assert summary["num_trials/completed"] == NUM_TRIALS
    assert summary["device_seconds"] == 0.5 * NUM_TRIALS * NUM_STEPS


def test_a_trial_that_has_ended_comes_with_all_its_observations(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectune.service.tracking.projector.BATCH", 3)  # its last window holds some of them only
    tracker = FakeTracker()
    Projector(ledger, tracker, "c").catch_up()
    assert tracker.histories == {trial: list(range(1, NUM_STEPS + 1)) for trial in range(NUM_TRIALS)}


def test_what_a_tracker_refuses_is_kept_once_and_holds_nothing_back(ledger: Ledger) -> None:
    tracker = FakeTracker()
    tracker.refusals = [Refusal(1, "Point(...)", "no such metric"), Refusal(2, "Point(...)", "no such metric")]
    for _ in range(2):
        ledger.set_cursor("fake", "c", 0)
        Projector(ledger, tracker, "c").catch_up()
    assert_complete(tracker)
    assert ledger.dead_letters("fake", "c") == tracker.refusals
    ledger.clear_dead_letters("fake", "c")
    assert ledger.dead_letters("fake", "c") == []


def test_finals_are_not_mixed_with_the_search(ledger: Ledger) -> None:
    place = {"arm": 0, "point": 0, "seed_index": 7, "config": {}, "ask": {"phase": "final"}}
    records = [entries.trial_created(trial=9, at=1, **place)]  # type: ignore[arg-type]
    observed: dict[str, Any] = {"metrics": {"loss": 0.5}, "objective": 0.5, "device_seconds": 1.0, "produced_at": 3}
    records.append(entries.observation(trial=9, step=1, **observed))
    records.append(entries.trial_moved(trial=9, state=TrialState.COMPLETED, reason="end_of_schedule", at=9))
    ledger.create_campaign("d", name="test", specification=SPECIFICATION)
    attempt = ledger.begin_attempt("d")
    ledger.move_campaign("d", CampaignEvent.LAUNCH, reason="launching")
    ledger.move_campaign("d", CampaignEvent.CLAIM, reason="driver_started")
    ledger.append("d", attempt, list(enumerate([*_records(), *records], start=1)))
    ledger.move_campaign("d", CampaignEvent.SUCCEED, reason="all_trials_ended")
    tracker = FakeTracker()
    Projector(ledger, tracker, "d").catch_up()
    assert (tracker.summaries["d"]["best"], tracker.summaries["d"]["best_final"]) == (4.0, 0.5)


def test_a_second_projection_has_nothing_to_tell(ledger: Ledger) -> None:
    projector = Projector(ledger, FakeTracker(), "c")
    projector.catch_up()
    assert not projector.project()


@pytest.mark.parametrize("num_calls", range(0, 8))
def test_a_tracker_that_fails_after_any_call_is_complete_after_the_next_try(ledger: Ledger, num_calls: int) -> None:
    tracker = FakeTracker()
    tracker.fail_after = num_calls
    try:
        Projector(ledger, tracker, "c").catch_up()
    except TrackerDownError:
        assert ledger.cursor("fake", "c") == 0
    tracker.fail_after = None
    Projector(ledger, tracker, "c").catch_up()
    assert_complete(tracker)
    assert ledger.cursor("fake", "c") == ledger.campaign("c").sequence


def test_an_empty_tracker_is_filled_again_when_its_cursor_is_set_back(ledger: Ledger) -> None:
    Projector(ledger, FakeTracker(), "c").catch_up()
    ledger.set_cursor("fake", "c", 0)
    fresh = FakeTracker()
    Projector(ledger, fresh, "c").catch_up()
    assert_complete(fresh)


def test_batches_grow_shorter_while_the_tracker_fails_and_long_again_afterwards(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of a thousand runs never arrived over a connection that failed once in a hundred requests."""
    monkeypatch.setattr("spectune.service.tracking.projector.BATCH", 8)
    monkeypatch.setattr("spectune.service.tracking.projector.SHORTEST_BATCH", 2)
    limits: list[int] = []
    changes = ledger.changes

    def counted(campaign_id: str, *, after: int, limit: int) -> Any:
        limits.append(limit)
        return changes(campaign_id, after=after, limit=limit)

    monkeypatch.setattr(ledger, "changes", counted)
    tracker = FakeTracker()
    tracker.fail_after = 0
    projector = Projector(ledger, tracker, "c")
    for _ in range(4):
        with pytest.raises(TrackerDownError):
            projector.project()
    tracker.fail_after = None
    projector.catch_up()
    assert limits[:9] == [8, 4, 2, 2, 2, 2, 2, 4, 8]
    assert_complete(tracker)
