"""Standings and summaries of campaigns, remembered: large ones take long to read and to rank."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from spectune.service.campaign.analysis.leaderboard import ArmStanding
from spectune.service.campaign.analysis.live_leaderboard import LiveLeaderboard
from spectune.service.campaign.analysis.summary import Summary
from spectune.service.campaign.model.records import CampaignRecord
from spectune.service.campaign.model.submission import Submission
from spectune.service.ledger import ServiceLedger

_MOST_TRIALS = 100_000  # of all leaderboards together: some fifty megabytes
_MOST_SUMMARIES = 4096


class Standings:
    """A cache of leaderboards that are kept up to date, and not ranked anew; safe to share between threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _CachedStandings] = OrderedDict()
        self._lock = threading.Lock()

    def has_room(self, submission: Submission, summary: Summary) -> bool:
        """Return whether the leaderboard of a campaign is kept, or can be without another being forgotten for it."""
        with self._lock:
            if submission.campaign_id in self._kept:
                return True
            num_kept = sum(each.num_trials for each in self._kept.values())
        return num_kept + sum(each.num_trials for each in summary.tallies) <= _MOST_TRIALS

    def of(self, ledger: ServiceLedger, submission: Submission) -> tuple[ArmStanding, ...]:
        """Return a campaign's standings as of `submission.campaign.sequence` or later."""
        campaign = submission.campaign
        with self._lock:
            if campaign.campaign_id not in self._kept:
                self._kept[campaign.campaign_id] = _CachedStandings(campaign)
            kept = self._kept[campaign.campaign_id]
            self._kept.move_to_end(campaign.campaign_id)
        standings = kept.at_least(ledger, campaign)
        with self._lock:
            while len(self._kept) > 1 and sum(each.num_trials for each in self._kept.values()) > _MOST_TRIALS:
                self._kept.popitem(last=False)
        return standings


class _CachedStandings:
    """The leaderboard of one campaign; who asks for what is not known yet waits for the one who reads it."""

    def __init__(self, campaign: CampaignRecord) -> None:
        num_arms, mode = len(campaign.specification["arms"]), campaign.objective["mode"]
        self._board = LiveLeaderboard(num_arms=num_arms, mode=mode)
        self._standings = self._board.standings()
        self._sequence = 0
        self._lock = threading.Lock()

    @property
    def num_trials(self) -> int:
        return self._board.num_trials

    def at_least(self, ledger: ServiceLedger, campaign: CampaignRecord) -> tuple[ArmStanding, ...]:
        with self._lock:
            if self._sequence < campaign.sequence:
                self._board.update(ledger.outcomes(campaign.campaign_id, after=self._sequence))
                self._standings = self._board.standings()
                self._sequence = campaign.sequence
            return self._standings


class Summaries:
    """A small cache of what lists say of campaigns' trials; safe to share between threads.

    A campaign that changes while it is listed is ranked by its leaderboard, which learns what has changed; one that was
    not listed before, or that is too large for a leaderboard to be kept, by the database.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, Summary]] = OrderedDict()
        self._lock = threading.Lock()

    def of(
        self, ledger: ServiceLedger, submissions: Sequence[Submission], *, standings: Standings
    ) -> dict[str, Summary]:
        """Return campaigns' summaries, by id, as of their sequence or later.

        Args:
            ledger: The truth.
            submissions: Which campaigns.
            standings: Keeps their leaderboards.
        """
        with self._lock:
            known = {each.campaign_id: self._kept.get(each.campaign_id) for each in submissions}
        found: dict[str, Summary] = {}
        missing: dict[str, Submission] = {}
        for each in submissions:
            kept = known[each.campaign_id]
            if kept is not None and kept[0] >= each.campaign.sequence:
                found[each.campaign_id] = kept[1]
            else:
                missing[each.campaign_id] = each
        if missing:
            changed = {
                campaign_id: each
                for campaign_id, each in missing.items()
                if (kept := known[campaign_id]) is not None and standings.has_room(each, kept[1])
            }
            fresh = ledger.summaries([each.campaign for name, each in missing.items() if name not in changed])
            fresh |= _of_changed(ledger, changed, standings)
            with self._lock:
                for campaign_id, summary in fresh.items():
                    self._kept[campaign_id] = (missing[campaign_id].campaign.sequence, summary)
                    self._kept.move_to_end(campaign_id)
                while len(self._kept) > _MOST_SUMMARIES:
                    self._kept.popitem(last=False)
            found |= fresh
        return found


def _of_changed(ledger: ServiceLedger, changed: Mapping[str, Submission], standings: Standings) -> dict[str, Summary]:
    """Summarize campaigns whose leaderboards are kept, or will be."""
    tallies = ledger.tallies(changed)
    found = {}
    for campaign_id, each in changed.items():
        arms = standings.of(ledger, each)
        best = [replace(arm, ranked=arm.ranked[:1], finals=arm.finals[:1]) for arm in arms]
        found[campaign_id] = Summary(tallies=tallies[campaign_id], standings=best)
    return found
