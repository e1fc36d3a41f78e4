"""One thread follows all campaigns: also those that come later, and over a tracker that fails for a while."""

from __future__ import annotations

import time
from collections.abc import Sequence

from service.ledger import ServiceLedger
from service.tracking.follower import Follower
from service.tracking.projector import Projector
from tests.fakes.tracker import FakeTracker

SPECIFICATION = {"objective": {"mode": "minimize"}}


def follower(ledger: ServiceLedger, made: list[str]) -> Follower:
    tracker = FakeTracker()
    tracker.name = "mlflow"

    def make(campaign_ids: Sequence[str]) -> list[Projector]:
        made.extend(campaign_ids)
        return [Projector(ledger, tracker, campaign_id) for campaign_id in campaign_ids]

    return Follower(ledger, make)


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
