"""Follows the ledger and tells a tracker: the tracker is a projection that can be deleted and made again.

The projector reads what happened to a campaign after its cursor, tells the tracker, and only then moves the cursor. If
it dies in between it tells the same things once more, which trackers bear by contract.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from service.campaign.lifecycle import CampaignState, TrialState
from service.campaign.records import CampaignRecord, Event, Observation, TrialRecord
from service.ports import FollowedLedger, Tracker

BATCH = 5_000


class Projector:
    """Brings one tracker up to date with one campaign.

    Args:
        ledger: The truth.
        tracker: The projection.
        campaign_id: Which campaign.
    """

    def __init__(self, ledger: FollowedLedger, tracker: Tracker, campaign_id: str) -> None:
        self._ledger = ledger
        self._tracker = tracker
        self._campaign_id = campaign_id

    def catch_up(self) -> None:
        """Project until the tracker holds everything that the ledger holds."""
        while self.project():
            pass

    def project(self) -> bool:
        """Project the next batch.

        Returns:
            Whether there was anything to project.
        """
        cursor = self._ledger.cursor(self._tracker.name, self._campaign_id)
        changes = self._ledger.changes(self._campaign_id, after=cursor, limit=BATCH)
        if not changes:
            return False
        # Read after the changes, so that every trial they speak of is there; it may be further on already.
        campaign = self._ledger.campaign(self._campaign_id)
        trials = {trial.number: trial for trial in self._ledger.trials(self._campaign_id)}
        self._tracker.open_campaign(campaign)
        self._project_trials(campaign, trials, changes)
        if any(isinstance(change, Event) and change.kind == "campaign_moved" for change in changes):
            self._tracker.update_campaign(campaign, _summary(campaign, list(trials.values())))
        self._ledger.set_cursor(self._tracker.name, self._campaign_id, changes[-1].sequence)
        return True

    def page(self) -> str:
        """Give the address where the campaign can be looked at, once something was projected."""
        return self._tracker.page(self._ledger.campaign(self._campaign_id))

    def _project_trials(
        self, campaign: CampaignRecord, trials: dict[int, TrialRecord], changes: Sequence[Event | Observation]
    ) -> None:
        observed: defaultdict[int, list[Observation]] = defaultdict(list)
        moved: set[int] = set()
        for change in changes:
            if isinstance(change, Observation):
                observed[change.trial].append(change)
            elif change.trial is not None:
                moved.add(change.trial)
        for number in sorted(observed.keys() | moved):
            self._tracker.open_trial(campaign, trials[number])
            self._tracker.log(campaign, trials[number], observed[number])
        for number in sorted(moved):
            self._tracker.update_trial(campaign, trials[number])


def _summary(campaign: CampaignRecord, trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Summarise a campaign for its parent run: counts, device seconds, and the best completed objective."""
    summary = {
        f"num_trials/{state.lower()}": float(sum(each.state is state for each in trials)) for state in TrialState
    }
    summary["device_seconds"] = sum(trial.device_seconds for trial in trials)
    completed = [each.objective for each in trials if each.state is TrialState.COMPLETED and each.objective is not None]
    if completed and campaign.state is not CampaignState.QUEUED:
        pick = min if campaign.objective["mode"] == "minimize" else max
        summary["best"] = pick(completed)
    return summary
