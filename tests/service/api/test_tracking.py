"""The way into MLflow over HTTP: addresses where it holds the runs, the reason where it cannot be asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from spectune.service.campaign.model.records import CampaignRecord
from spectune.service.errors import TrackingError
from spectune.service.ports import CampaignPages
from spectune.service.settings import Settings
from tests.service.api.conftest import Bench, make_bench


class FakePages:
    """An MLflow that holds every campaign, until it is away."""

    is_away = False

    def of_campaign(self, campaign: CampaignRecord) -> CampaignPages:
        if self.is_away:
            raise TrackingError("MLflow does not answer")
        return CampaignPages(run=f"http://mlflow/#/{campaign.campaign_id}", trials="http://mlflow/#/trials")

    def of_trial(self, campaign: CampaignRecord, number: int) -> str | None:
        if self.is_away:
            raise TrackingError("MLflow does not answer")
        return f"http://mlflow/#/{campaign.campaign_id}/{number}"


@pytest.fixture
def pages() -> FakePages:
    return FakePages()


@pytest.fixture
def tracked(tmp_path: Path, pages: FakePages) -> Iterator[Bench]:
    with make_bench(tmp_path, Settings(), pages=pages) as bench:
        yield bench


def test_a_campaign_and_a_trial_link_to_where_they_can_be_looked_at(tracked: Bench) -> None:
    campaign_id = tracked.submit()
    tracked.add_trials(campaign_id, [1.0])
    campaign = tracked.client.get(f"/v1/campaigns/{campaign_id}").json()
    trial = tracked.client.get(f"/v1/campaigns/{campaign_id}/trials/0").json()
    assert tracked.client.get(campaign["links"]["tracking"]).json() == {
        "run": f"http://mlflow/#/{campaign_id}",
        "trials": "http://mlflow/#/trials",
        "best": None,
        "problem": None,
        "num_untold": 5,  # MLflow's fake knows where the runs are, and nothing was projected
    }
    expected = {"run": f"http://mlflow/#/{campaign_id}/0", "problem": None}
    assert tracked.client.get(trial["links"]["tracking"]).json() == expected


def test_an_mlflow_that_is_away_is_told_of_and_holds_up_nothing_else(tracked: Bench, pages: FakePages) -> None:
    campaign_id = tracked.submit()
    tracked.add_trials(campaign_id, [1.0])
    pages.is_away = True
    for path in (f"/v1/campaigns/{campaign_id}/tracking", f"/v1/campaigns/{campaign_id}/trials/0/tracking"):
        answer = tracked.client.get(path)
        assert (answer.status_code, answer.json()["run"]) == (200, None)
        assert answer.json()["problem"] == "MLflow does not answer"
    assert tracked.client.get(f"/v1/campaigns/{campaign_id}").status_code == 200


def test_a_service_without_a_tracker_says_so_and_a_trial_that_does_not_exist_is_no_page(bench: Bench) -> None:
    campaign_id = bench.submit()
    answer = bench.client.get(f"/v1/campaigns/{campaign_id}/tracking")
    assert answer.json()["problem"] == "this service keeps no tracker"
    assert bench.client.get(f"/v1/campaigns/{campaign_id}/trials/7/tracking").status_code == 404
