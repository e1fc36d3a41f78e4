"""One thread follows all campaigns: also those that come later, and over a tracker that fails for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from spectune.service.app import lead_tracking
from spectune.service.campaign.model.lifecycle import CampaignEvent
from spectune.service.campaign.model.records import CampaignRecord, Refusal
from spectune.service.ledger import ServiceLedger
from spectune.service.tracking.follower import Follower
from spectune.service.tracking.pacing import rest_seconds
from spectune.service.tracking.projector import Projector
from tests.fakes.tracker import FakeTracker, TrackerDownError

SPECIFICATION = {"objective": {"metric": "loss", "mode": "minimize"}, "arms": [{"name": "a"}]}


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


def test_a_tracker_rests_except_from_what_people_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectune.service.tracking.follower.LOOK_SECONDS", 0.01)
    is_resting = threading.Event()

    def rest(telling_seconds: float) -> float:
        is_resting.set()
        return 1000.0

    monkeypatch.setattr("spectune.service.tracking.follower.rest_seconds", rest)

    def wait_until_told(campaign_id: str) -> None:
        deadline = time.monotonic() + 60
        while ledger.cursor("mlflow", campaign_id) < ledger.campaign(campaign_id).sequence:
            assert time.monotonic() < deadline, f"{campaign_id} was never told"
            time.sleep(0.01)

    with ServiceLedger.at(tmp_path / "ledger.sqlite") as ledger:
        ledger.create_campaign("a", name="a", specification=SPECIFICATION)
        following = follower(ledger, [])
        following.start()
        wait_until_told("a")
        assert is_resting.wait(60)
        ledger.begin_attempt("a")
        time.sleep(0.5)
        assert ledger.cursor("mlflow", "a") == 1, "it did not rest"
        ledger.create_campaign("b", name="b", specification=SPECIFICATION)
        wait_until_told("b")  # one that it does not know; what else there is comes with it
        wait_until_told("a")
        ledger.move_campaign("b", CampaignEvent.FAIL, reason="refused")
        wait_until_told("b")  # one that has ended
        following.end(timeout_seconds=10)


@pytest.mark.parametrize(("telling", "rest"), [(0.0, 1.0), (0.1, 5.0), (0.2, 10.0), (10.0, 15.0)])
def test_a_rest_is_fifty_times_the_telling_within_bounds(telling: float, rest: float) -> None:
    assert rest_seconds(telling) == rest


def test_campaigns_that_always_fail_keep_no_other_waiting() -> None:
    class Poisoned(FakeTracker):
        def tell(self, campaign: CampaignRecord, *rest: Any) -> list[Refusal]:
            if campaign.campaign_id.startswith("poisoned"):
                raise UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed")
            return super().tell(campaign, *rest)

    with ServiceLedger("sqlite://") as ledger:
        for name in ("sound", *(f"poisoned-{number}" for number in range(4))):  # the newest is looked at first
            ledger.create_campaign(name, name=name, specification=SPECIFICATION)
        following = follower(ledger, [], tracker=Poisoned())
        for _ in range(3):
            with pytest.raises(UnicodeEncodeError):
                following.catch_up()
        assert ledger.cursor("mlflow", "sound") == 1
