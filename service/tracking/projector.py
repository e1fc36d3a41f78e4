"""Follows the ledger and tells a tracker: the tracker is a projection that can be deleted and made again.

The projector reads what happened to a campaign after its cursor, tells the tracker, and only then moves the cursor. If
it dies in between it tells the same things once more, which trackers bear by contract. A batch is told whole or again,
so after each failure in a row the next one is half as long: over a bad connection a long one would never arrive.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from spectune.service.campaign.analysis.best import campaign_ranking
from spectune.service.campaign.analysis.leaderboard import leaderboard, place_of
from spectune.service.campaign.model.lifecycle import CampaignState, TrialState
from spectune.service.campaign.model.progress import tally
from spectune.service.campaign.model.records import CampaignRecord, Event, Observation, Phase, TrialRecord, TrialUpdate
from spectune.service.ports import Attachments, TrackedLedger, Tracker

BATCH = 20_000
SHORTEST_BATCH = 20
_MOST_HALVINGS = 10  # 20 000 become 20


class Projector:
    """Brings one tracker up to date with one campaign.

    Args:
        ledger: The truth.
        tracker: The projection.
        campaign_id: Which campaign.
        attachments: Puts documents beside it; None for none.
    """

    def __init__(
        self, ledger: TrackedLedger, tracker: Tracker, campaign_id: str, *, attachments: Attachments | None = None
    ) -> None:
        self._ledger = ledger
        self._tracker = tracker
        self._campaign_id = campaign_id
        self._attachments = attachments
        self._num_halvings = 0

    @property
    def campaign_id(self) -> str:
        """Which campaign it tells of."""
        return self._campaign_id

    def catch_up(self) -> None:
        """Project until the tracker holds everything that the ledger holds."""
        while self.project():
            pass

    def attach(self) -> None:
        """Attach what the campaign leaves, once it has ended and the tracker holds everything else."""
        if self._attachments is not None:
            self._attachments.attach(self._campaign_id)

    def project(self) -> bool:
        """Project the next batch.

        Returns:
            Whether there was anything to project.
        """
        try:
            has_projected = self._project(min(BATCH, max(SHORTEST_BATCH, BATCH >> self._num_halvings)))
        except Exception:
            self._num_halvings = min(self._num_halvings + 1, _MOST_HALVINGS)
            raise
        self._num_halvings = max(self._num_halvings - 1, 0)
        return has_projected

    def page(self) -> str:
        """Return the address where the campaign can be looked at, once something was projected."""
        return self._tracker.page(self._ledger.campaign(self._campaign_id))

    def _project(self, limit: int) -> bool:
        cursor = self._ledger.cursor(self._tracker.name, self._campaign_id)
        changes = self._ledger.changes(self._campaign_id, after=cursor, limit=limit)
        if not changes:
            return False
        campaign = self._ledger.campaign(self._campaign_id)
        refusals = self._tracker.tell(campaign, self._news(changes), self._summary_of(campaign, changes))
        self._ledger.add_dead_letters(self._tracker.name, self._campaign_id, refusals)
        self._ledger.set_cursor(self._tracker.name, self._campaign_id, changes[-1].sequence)
        return True

    def _news(self, changes: Sequence[Event | Observation]) -> list[TrialUpdate]:
        """Tell the changes by trial. A trial is read after them, so that it is there; it may be further on already."""
        observed: defaultdict[int, list[Observation]] = defaultdict(list)
        moved: set[int] = set()
        for change in changes:
            if isinstance(change, Observation):
                observed[change.trial].append(change)
            elif change.trial is not None:
                moved.add(change.trial)
        numbers = observed.keys() | moved
        records = {each.number: each for each in self._ledger.trials(self._campaign_id, numbers=numbers)}
        histories = self._histories({number for number in moved if records[number].state.is_terminal})
        return [
            TrialUpdate(records[number], observed[number], number in moved, histories[number])
            for number in sorted(numbers)
        ]

    def _histories(self, trials: Collection[int]) -> defaultdict[int, list[Observation]]:
        """Read all observations of trials that have ended."""
        found: defaultdict[int, list[Observation]] = defaultdict(list)
        for each in self._ledger.observations(self._campaign_id, of=trials) if trials else ():
            found[each.trial].append(each)
        return found

    def _summary_of(self, campaign: CampaignRecord, changes: Sequence[Event | Observation]) -> dict[str, float] | None:
        """Summarise the campaign where it has moved."""
        if any(isinstance(change, Event) and change.kind == "campaign_moved" for change in changes):
            return _summary(campaign, self._ledger.trials(self._campaign_id))
        return None


def _summary(campaign: CampaignRecord, trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Summarize a campaign for its own run.

    num_trials/<state>   how many trials are in a state
    device_seconds       of all trials
    best                 the best search value, over all arms: the mean over the seeds of its point
    best_final           if arms are compared by their finals: the mean of the finals of the best point of all

    The last two are not there if no best point may be named.
    """
    summary = {
        f"num_trials/{state.lower()}": float(sum(each.state is state for each in trials)) for state in TrialState
    }
    summary["device_seconds"] = sum(trial.device_seconds for trial in trials)
    if campaign.state is CampaignState.QUEUED:
        return summary
    num_arms, mode = len(campaign.specification["arms"]), campaign.objective["mode"]
    standings = leaderboard(trials, num_arms=num_arms, mode=mode)
    ranking = campaign_ranking(campaign, standings, tally(trials))
    if ranking.best is not None:
        summary["best"] = min((each.best for each in standings if each.best is not None), key=place_of(mode)).value
        if ranking.phase is Phase.FINAL:
            summary["best_final"] = ranking.best.standing.value
    return summary
