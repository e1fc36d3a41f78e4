"""A tracker that remembers, and can be made to fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from service.campaign.records import CampaignRecord, Observation, TrialRecord


class TrackerDownError(Exception):
    """The tracker is out of reach."""


class FakeTracker:
    """Keeps what it is told the way a real tracker does: the same thing told twice is there once.

    Attributes:
        fail_after: Calls that still succeed before every further one raises; None for all.
    """

    name = "fake"

    def __init__(self) -> None:
        self.fail_after: int | None = None
        self.campaign_states: dict[str, str] = {}
        self.summaries: dict[str, dict[str, float]] = {}
        self.trial_states: dict[int, str] = {}
        self.points: dict[int, set[tuple[str, int, int, float]]] = defaultdict(set)

    def open_campaign(self, campaign: CampaignRecord) -> None:
        self._maybe_fail()
        self.campaign_states.setdefault(campaign.campaign_id, "")

    def open_trial(self, campaign: CampaignRecord, trial: TrialRecord) -> None:
        self._maybe_fail()
        assert campaign.campaign_id in self.campaign_states, "the campaign is opened first"
        self.trial_states.setdefault(trial.number, "")

    def log(self, campaign: CampaignRecord, trial: TrialRecord, observations: Sequence[Observation]) -> None:
        self._maybe_fail()
        assert trial.number in self.trial_states, "the trial is opened first"
        for each in observations:
            self.points[trial.number] |= {
                (name, each.produced_at, each.step, value) for name, value in each.metrics.items()
            }

    def update_trial(self, campaign: CampaignRecord, trial: TrialRecord) -> None:
        self._maybe_fail()
        self.trial_states[trial.number] = trial.state

    def update_campaign(self, campaign: CampaignRecord, summary: Mapping[str, float]) -> None:
        self._maybe_fail()
        self.campaign_states[campaign.campaign_id] = campaign.state
        self.summaries[campaign.campaign_id] = dict(summary)

    def page(self, campaign: CampaignRecord) -> str:
        return f"fake://{campaign.campaign_id}"

    def _maybe_fail(self) -> None:
        if self.fail_after is None:
            return
        if self.fail_after == 0:
            raise TrackerDownError
        self.fail_after -= 1
