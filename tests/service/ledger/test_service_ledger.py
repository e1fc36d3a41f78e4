"""What the service keeps beside a campaign's history: submissions, pages, keys and leases, on either database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState, TrialState
from spectune.service.campaign.model.records import Phase
from spectune.service.errors import (
    CampaignNotFoundError,
    IdempotencyError,
    IllegalTransitionError,
    LeadershipError,
    NothingFailedError,
    StaleVersionError,
)
from spectune.service.ledger import ServiceLedger, entries
from spectune.service.ledger.access import Role
from spectune.service.ledger.pages import campaign_key, trial_key
from spectune.service.ledger.submissions import LEADER, IdempotencyKey

SPECIFICATION = {"name": "x", "resources": {"workers": 2, "cpus": 3}}


@pytest.fixture
def ledger(database: str) -> Iterator[ServiceLedger]:
    with ServiceLedger(database) as ledger:
        yield ledger


def submit(ledger: ServiceLedger, campaign_id: str = "c", **options: Any) -> str:
    return ledger.submit(campaign_id, name="x", specification=SPECIFICATION, **{"owner": "me", **options})


def lead(ledger: ServiceLedger, holder: str = "a") -> None:
    assert ledger.take_lease(LEADER, holder=holder, seconds=60)


def test_a_submission_comes_back_with_its_campaign(ledger: ServiceLedger) -> None:
    submit(ledger, priority=5)
    submission = ledger.submission("c")
    assert (submission.owner, submission.priority, submission.version) == ("me", 5, 1)
    assert (submission.campaign.state, submission.num_cpus) == (CampaignState.QUEUED, 6)
    assert [each.campaign_id for each in ledger.live_submissions()] == ["c"]


def test_a_campaign_of_run_is_none_of_the_service(ledger: ServiceLedger) -> None:
    ledger.create_campaign("c", name="x", specification=SPECIFICATION)
    assert ledger.live_submissions() == []
    with pytest.raises(CampaignNotFoundError):
        ledger.submission("c")


def test_campaigns_of_run_that_rest_are_taken_over_once_and_those_that_run_are_not(ledger: ServiceLedger) -> None:
    submit(ledger, "own")
    events = {"ended": CampaignEvent.FAIL, "paused": CampaignEvent.PAUSE, "runs": None}
    for campaign_id, event in events.items():
        ledger.create_campaign(campaign_id, name="x", specification=SPECIFICATION)
        if event is not None:
            ledger.move_campaign(campaign_id, event, reason="x")
    assert (ledger.take_over(owner="me"), ledger.take_over(owner="you")) == (2, 0)
    taken = {each.campaign_id: each.owner for each in ledger.submissions(limit=10)}
    assert taken == {"own": "me", "ended": "me", "paused": "me"}
    ledger.set_going("paused", CampaignEvent.RESUME)
    assert [each.campaign_id for each in ledger.live_submissions()] == ["own", "paused"]


def test_the_same_key_and_request_give_the_same_campaign_and_another_request_is_refused(ledger: ServiceLedger) -> None:
    key = IdempotencyKey("k", "same")
    assert submit(ledger, "c", idempotency=key) == "c"
    assert submit(ledger, "d", idempotency=key) == "c"
    assert submit(ledger, "e", idempotency=key, owner="you") == "e"
    with pytest.raises(IdempotencyError, match="got 'k'"):
        submit(ledger, "f", idempotency=IdempotencyKey("k", "other"))
    assert sorted(each.campaign_id for each in ledger.live_submissions()) == ["c", "e"]


def test_one_request_sent_many_times_at_once_makes_one_campaign(database: str) -> None:
    ledgers = [ServiceLedger(database) for _ in range(5)]
    gate = threading.Barrier(5)
    given: list[str] = []

    def send(number: int) -> None:
        gate.wait()
        given.append(submit(ledgers[number], f"c{number}", idempotency=IdempotencyKey("k", "same")))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == 5
    assert [each.campaign_id for each in ledgers[0].live_submissions()] == [given[0]] == list(set(given))
    for ledger in ledgers:
        ledger.close()


def test_only_the_leader_launches(ledger: ServiceLedger) -> None:
    submit(ledger)
    with pytest.raises(LeadershipError, match="got 'b'"):
        ledger.launch("c", holder="b")
    lead(ledger, "a")
    with pytest.raises(LeadershipError, match="got 'b'"):
        ledger.launch("c", holder="b")
    assert ledger.submission("c").campaign.state is CampaignState.QUEUED
    assert ledger.launch("c", holder="a") == 1
    with pytest.raises(IllegalTransitionError):
        ledger.launch("c", holder="a")
    assert (ledger.submission("c").campaign.state, ledger.submission("c").campaign.attempt) == ("STARTING", 1)


def test_a_lease_is_one_holders_until_it_ends_or_is_left(ledger: ServiceLedger) -> None:
    assert ledger.take_lease("x", holder="a", seconds=0.2)
    assert ledger.take_lease("x", holder="a", seconds=0.2)
    assert not ledger.take_lease("x", holder="b", seconds=0.2)
    time.sleep(0.3)
    assert ledger.take_lease("x", holder="b", seconds=60)
    assert not ledger.take_lease("x", holder="a", seconds=60)
    ledger.leave_lease("x", holder="a")  # not its own any more
    assert not ledger.take_lease("x", holder="a", seconds=60)
    ledger.leave_lease("x", holder="b")
    assert ledger.take_lease("x", holder="a", seconds=60)


def test_a_lost_attempt_is_counted_and_waits_until_a_user_sets_it_going(ledger: ServiceLedger) -> None:
    submit(ledger)
    lead(ledger)
    ledger.launch("c", holder="a")
    ledger.lose_attempt("c", message="killed", retry_seconds=100.0, num_failures=1)
    lost = ledger.submission("c")
    assert (lost.campaign.state, lost.num_failures) == (CampaignState.QUEUED, 1)
    assert 90_000 < lost.not_before - ledger.clock() <= 100_000
    ledger.move_campaign("c", CampaignEvent.PAUSE, reason="user")
    ledger.set_going("c", CampaignEvent.RESUME)
    assert (ledger.submission("c").num_failures, ledger.submission("c").not_before) == (0, 0)


def test_a_change_against_another_version_is_refused(ledger: ServiceLedger) -> None:
    submit(ledger)
    assert ledger.change("c", version=1, priority=7).version == 2
    with pytest.raises(StaleVersionError, match="at version 2: got 1"):
        ledger.change("c", version=1, priority=8)
    assert ledger.submission("c").priority == 7
    with pytest.raises(IllegalTransitionError, match="PAUSED"):
        ledger.change("c", version=None, specification={}, only_in=[CampaignState.PAUSED])


def test_a_retry_opens_the_trials_that_failed_and_no_others(ledger: ServiceLedger) -> None:
    submit(ledger)
    attempt = ledger.begin_attempt("c")
    place: dict[str, Any] = {"arm": 0, "seed_index": 0, "config": {}, "ask": {}, "at": 1}
    records = [entries.trial_created(trial=number, point=number, **place) for number in range(3)]
    ends = [TrialState.COMPLETED, TrialState.FAILED, TrialState.LOST]
    records += [entries.trial_moved(trial=number, state=end, reason="x", at=2) for number, end in enumerate(ends)]
    ledger.append("c", attempt, list(enumerate(records, start=1)))
    ledger.move_campaign("c", CampaignEvent.FAIL, reason="x")
    ledger.set_going("c", CampaignEvent.RETRY)
    assert [trial.state for trial in ledger.trials("c")] == ["COMPLETED", "PENDING", "PENDING"]
    document = {"arms": [{"name": "muon"}], "objective": {"mode": "minimize"}}
    tallies = ledger.summaries([replace(ledger.campaign("c"), specification=document)])["c"].tallies
    assert {each.state: each.num_trials for each in tallies} == {TrialState.COMPLETED: 1, TrialState.PENDING: 2}


@pytest.mark.parametrize("ends", [[], ["COMPLETED"], ["DIVERGED", "STOPPED"], ["COMPLETED", "CANCELLED"]])
def test_a_retry_of_a_campaign_without_failures_is_refused_and_changes_nothing(
    ledger: ServiceLedger, ends: list[str]
) -> None:
    """It made a second attempt that did nothing."""
    submit(ledger)
    lead(ledger)
    attempt = ledger.launch("c", holder="a")
    ledger.claim_attempt("c", attempt)
    ledger.move_campaign("c", CampaignEvent.CLAIM, reason="x")
    place: dict[str, Any] = {"arm": 0, "seed_index": 0, "config": {}, "ask": {}, "at": 1}
    records = [entries.trial_created(trial=number, point=number, **place) for number in range(len(ends))]
    records += [entries.trial_moved(trial=n, state=TrialState(end), reason="x", at=2) for n, end in enumerate(ends)]
    ledger.append("c", attempt, list(enumerate(records, start=1)))
    ledger.move_campaign("c", CampaignEvent.SUCCEED, reason="all_trials_ended")
    before = ledger.submission("c")
    with pytest.raises(NothingFailedError, match="nothing to retry: got a campaign that is SUCCEEDED"):
        ledger.set_going("c", CampaignEvent.RETRY)
    assert ledger.submission("c") == before
    assert len(ledger.attempts("c")) == 1


def test_a_campaign_that_failed_itself_may_be_retried_without_a_failed_trial(ledger: ServiceLedger) -> None:
    submit(ledger)
    ledger.move_campaign("c", CampaignEvent.FAIL, reason="driver_lost")
    ledger.set_going("c", CampaignEvent.RETRY)
    assert ledger.submission("c").campaign.state is CampaignState.QUEUED


def test_only_what_has_ended_can_be_deleted(ledger: ServiceLedger) -> None:
    submit(ledger, idempotency=IdempotencyKey("k", "same"))
    with pytest.raises(IllegalTransitionError, match="got delete"):
        ledger.delete("c")
    ledger.move_campaign("c", CampaignEvent.FAIL, reason="x")
    ledger.delete("c")
    with pytest.raises(CampaignNotFoundError):
        ledger.submission("c")


@pytest.mark.parametrize("order", ["created_at", "-created_at", "priority", "-priority"])
def test_pages_of_campaigns_skip_none_and_repeat_none(ledger: ServiceLedger, order: Any) -> None:
    for number in range(7):
        submit(ledger, f"c{number}", priority=number % 3, owner="me" if number else "you")
    seen: list[str] = []
    after = None
    while page := ledger.submissions(limit=2, after=after, order_by=order, owner="me"):
        seen += [each.campaign_id for each in page]
        after = campaign_key(page[-1], order)
    assert sorted(seen) == [f"c{number}" for number in range(1, 7)]
    everything = [each.campaign_id for each in ledger.submissions(limit=100, order_by=order, owner="me")]
    assert seen == everything
    assert ledger.submissions(limit=9, states=[CampaignState.RUNNING]) == []


@pytest.mark.parametrize("order", ["number", "objective", "-objective"])
def test_pages_of_trials_skip_none_and_put_what_is_not_finite_last(ledger: ServiceLedger, order: Any) -> None:
    submit(ledger)
    attempt = ledger.begin_attempt("c")
    values = [3.0, float("nan"), 1.0, None, 1.0, float("inf"), -2.0]
    records = []
    for number, value in enumerate(values):
        place: dict[str, Any] = {"arm": number % 2, "seed_index": 0, "config": {}, "ask": {}, "at": 1}
        records.append(entries.trial_created(trial=number, point=number, **place))
        if value is not None:
            report: dict[str, Any] = {"metrics": {}, "device_seconds": 0.0, "produced_at": 1}
            records.append(entries.observation(trial=number, step=1, objective=value, **report))
    ledger.append("c", attempt, list(enumerate(records, start=1)))
    seen: list[int] = []
    after = None
    while page := ledger.trial_page("c", limit=2, after=after, order_by=order):
        seen += [trial.number for trial in page]
        after = trial_key(page[-1], order)
    expected = {
        "number": [0, 1, 2, 3, 4, 5, 6],
        "objective": [6, 2, 4, 0, 1, 3, 5],
        "-objective": [0, 2, 4, 6, 1, 3, 5],
    }
    assert seen == expected[order]
    assert [trial.number for trial in ledger.trial_page("c", limit=9, arm=1)] == [1, 3, 5]


def test_a_trackers_lag_is_what_it_has_not_been_told(ledger: ServiceLedger) -> None:
    for campaign_id in ("c", "d"):
        submit(ledger, campaign_id)
        ledger.move_campaign(campaign_id, CampaignEvent.PAUSE, reason="x")
    ledger.set_cursor("other", "c", 2)
    assert (ledger.num_changes(), ledger.lag("mlflow")) == (4, 4)
    ledger.set_cursor("mlflow", "c", 2)
    ledger.set_cursor("mlflow", "d", 1)
    assert ledger.lag("mlflow") == 1


def test_a_key_is_found_by_its_secret_until_it_is_revoked(ledger: ServiceLedger) -> None:
    assert not ledger.has_keys()
    key = ledger.create_key(owner="me", role=Role.SUBMITTER)
    found = ledger.find_key(key)
    assert found is not None
    assert (found.owner, found.role) == ("me", Role.SUBMITTER)
    for wrong in (key[:-1], key + "0", key.replace("spk", "spx"), "", "spk_", f"spk_{found.key_id}_", "spk__"):
        assert ledger.find_key(wrong) is None
    assert ledger.has_keys()
    assert ledger.revoke_key(found.key_id)
    assert not ledger.revoke_key(found.key_id)
    assert ledger.find_key(key) is None
    assert not ledger.has_keys()
    assert key.split("_")[2] not in repr(ledger.list_keys())


def test_a_role_includes_those_before_it() -> None:
    assert Role.ADMIN.includes(Role.SUBMITTER)
    assert Role.SUBMITTER.includes(Role.SUBMITTER)
    assert not Role.VIEWER.includes(Role.SUBMITTER)


def test_what_standings_need_is_read_of_the_trials_that_moved_or_reported_after_their_end(
    ledger: ServiceLedger,
) -> None:
    """The machine of late reports hardly ever looks right before and right after one."""
    submit(ledger)
    attempt, position = ledger.begin_attempt("c"), 0

    def write(*records: Any) -> None:
        nonlocal position
        ledger.append("c", attempt, list(enumerate(records, start=position + 1)))
        position += len(records)

    def report(trial: int, step: int, value: float) -> Any:
        return entries.observation(
            trial=trial, step=step, metrics={}, objective=value, device_seconds=1.0, produced_at=1
        )

    def changed(after: int) -> dict[int, tuple[TrialState, float | None]]:
        return {each.number: (each.state, each.objective) for each in ledger.outcomes("c", after=after)}

    place: dict[str, Any] = {"arm": 0, "seed_index": 0, "config": {"lr": 0.1}, "at": 1}
    for number, ask in enumerate([{}, {"phase": "final"}, {}]):
        write(entries.trial_created(trial=number, point=number, ask=ask, **place))
    assert [each.phase for each in ledger.outcomes("c")] == [Phase.SEARCH, Phase.FINAL, Phase.SEARCH]
    seen = ledger.campaign("c").sequence
    assert changed(seen) == {}
    write(
        report(0, 1, 2.0), report(1, 1, 3.0), entries.trial_moved(trial=1, state=TrialState.COMPLETED, reason="", at=2)
    )
    assert changed(seen) == {1: (TrialState.COMPLETED, 3.0)}, "what only trains has no place among the others"
    seen = ledger.campaign("c").sequence
    write(report(1, 2, 1.0), report(0, 2, 1.0))
    assert changed(seen) == {1: (TrialState.COMPLETED, 1.0)}, "a report that comes after the end counts"
