"""One thread follows all campaigns: also those that come later, and over a tracker that fails for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from service.app import lead_tracking
from service.campaign.records import CampaignRecord, Refusal
from service.ledger import ServiceLedger
from service.tracking.follower import Follower
from service.tracking.projector import Projector
from tests.fakes.tracker import FakeTracker, TrackerDownError

SPECIFICATION = {"objective": {"metric": "loss", "mode": "minimize"}}


def follower(
    ledger: ServiceLedger,
    made: list[str],
    *,
    tracker: FakeTracker | None = None,
    lead: Callable[[], bool] = lambda: True,
) -> Follower:
    tracker = tracker or FakeTracker()
    tracker.name = "mlflow"

    def make(campaign_ids: Sequence[str]) -> list[Projector]:
        made.extend(campaign_ids)
        return [Projector(ledger, tracker, campaign_id) for campaign_id in campaign_ids]

    return Follower(ledger, make, lead=lead)


def test_each_campaign_is_followed_once_and_later_ones_too() -> None:
    made: list[str] = []
    with ServiceLedger("sqlite://") as ledger:
        ledger.create_campaign("a", name="a", specification=SPECIFICATION)
        following = follower(ledger, made)
        following.catch_up()
        ledger.create_campaign("b", name="b", specification=SPECIFICATION)
        ledger.begin_attempt("a")
        for _ in range(2):
            following.catch_up()
        assert made == ["a", "b"]
        assert (ledger.cursor("mlflow", "a"), ledger.cursor("mlflow", "b")) == (2, 1)


def test_a_tracker_that_cannot_be_opened_is_told_of_and_tried_again() -> None:
    class Campaigns:
        def campaigns(self) -> list[object]:
            raise OSError("away")

    following = Follower(Campaigns(), lambda _: [])  # type: ignore[arg-type]
    following.start()
    deadline = time.monotonic() + 5
    while following.problem() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert following.problem() == "the tracker lags behind: OSError"
    following.end(timeout_seconds=5)


def test_a_replica_that_does_not_lead_tells_nothing() -> None:
    """Two that tell at once make every run twice."""
    made: list[str] = []
    with ServiceLedger("sqlite://") as ledger:
        ledger.create_campaign("a", name="a", specification=SPECIFICATION)
        mine, theirs = (lambda holder=holder: lead_tracking(ledger, holder) for holder in ("mine", "theirs"))
        assert theirs()
        follower(ledger, made, lead=mine).catch_up()
        assert (made, ledger.cursor("mlflow", "a")) == ([], 0)
        ledger.leave_lease("mlflow", holder="theirs")
        follower(ledger, made, lead=mine).catch_up()
        assert (made, ledger.cursor("mlflow", "a")) == (["a"], 1)


def test_a_campaign_that_cannot_be_told_does_not_hold_up_the_others() -> None:
    class OddTracker(FakeTracker):
        def tell(self, campaign: CampaignRecord, *arguments: Any) -> list[Refusal]:
            if campaign.campaign_id == "odd":
                raise KeyError("odd")
            return super().tell(campaign, *arguments)

    with ServiceLedger("sqlite://") as ledger:
        for campaign_id in ("a", "odd", "z"):
            ledger.create_campaign(campaign_id, name="a", specification=SPECIFICATION)
        with pytest.raises(KeyError):
            follower(ledger, [], tracker=OddTracker()).catch_up()
        assert [ledger.cursor("mlflow", each) for each in ("a", "odd", "z")] == [1, 0, 1]


def test_a_tracker_that_is_away_is_left_alone_after_a_few_campaigns() -> None:
    class Away(FakeTracker):
        num_calls = 0

        def tell(self, campaign: CampaignRecord, *arguments: Any) -> list[Refusal]:
            self.num_calls += 1
            raise TrackerDownError

    tracker = Away()
    with ServiceLedger("sqlite://") as ledger:
        for number in range(20):
            ledger.create_campaign(str(number), name="a", specification=SPECIFICATION)
        with pytest.raises(TrackerDownError):
            follower(ledger, [], tracker=tracker).catch_up()
    assert tracker.num_calls == 3
