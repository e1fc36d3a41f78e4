"""A tracker that remembers, and can be made to fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from spectune.service.campaign.model.records import CampaignRecord, Refusal, TrialUpdate


class TrackerDownError(Exception):
    """The tracker is out of reach."""


class FakeTracker:
    """Keeps what it is told the way a real tracker does: the same thing told twice is there once.

    Attributes:
        fail_after: Steps that still succeed before every further one raises; None for all.
        refusals: What it will never take.
        histories: The steps of each trial that has ended.
    """

    name = "fake"

    def __init__(self) -> None:
        self.fail_after: int | None = None
        self.campaign_states: dict[str, str] = {}
        self.summaries: dict[str, dict[str, float]] = {}
        self.trial_states: dict[int, str] = {}
        self.histories: dict[int, list[int]] = {}
        self.refusals: list[Refusal] = []
        self.points: dict[int, set[tuple[str, int, int, float]]] = defaultdict(set)

    def tell(
        self, campaign: CampaignRecord, trials: Sequence[TrialUpdate], summary: Mapping[str, float] | None
    ) -> list[Refusal]:
        self._maybe_fail()
        self.campaign_states.setdefault(campaign.campaign_id, "")
        for news in trials:
            self._maybe_fail()
            number = news.record.number
            self.trial_states.setdefault(number, "")
            for each in news.observations:
                self.points[number] |= {
                    (name, each.produced_at, each.step, value) for name, value in each.metrics.items()
                }
            self._maybe_fail()
            if news.has_moved:
                self.trial_states[number] = news.record.state
                self.histories[number] = [each.step for each in news.history]
        if summary is not None:
            self._maybe_fail()
            self.campaign_states[campaign.campaign_id] = campaign.state
            self.summaries[campaign.campaign_id] = dict(summary)
        return [each for each in self.refusals if each.trial in {news.record.number for news in trials}]

    def page(self, campaign: CampaignRecord) -> str:
        return f"fake://{campaign.campaign_id}"

    def _maybe_fail(self) -> None:
        if self.fail_after is None:
            return
        if self.fail_after == 0:
            raise TrackerDownError
        self.fail_after -= 1
