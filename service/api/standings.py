"""Standings and summaries of campaigns, computed once for each state of the ledger: large ones take long to rank."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from service.campaign.leaderboard import ArmStanding, leaderboard
from service.campaign.outcomes import Mode
from service.campaign.submission import Submission, Summary
from service.ledger import ServiceLedger

_MOST_KEPT = 64
_MOST_SUMMARIES = 4096


class Standings:
    """A small cache of leaderboards; safe to share between threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, tuple[ArmStanding, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, ledger: ServiceLedger, submission: Submission) -> tuple[ArmStanding, ...]:
        """Give a campaign's standings as of `submission.campaign.sequence` or later."""
        campaign = submission.campaign
        with self._lock:
            kept = self._kept.get(campaign.campaign_id)
        if kept is not None and kept[0] >= campaign.sequence:
            return kept[1]
        num_arms, mode = len(campaign.specification["arms"]), campaign.objective["mode"]
        standings = leaderboard(ledger.trials(campaign.campaign_id), num_arms=num_arms, mode=mode)
        with self._lock:
            self._kept[campaign.campaign_id] = (campaign.sequence, standings)
            self._kept.move_to_end(campaign.campaign_id)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return standings


class Summaries:
    """A small cache of what lists say of campaigns' trials; safe to share between threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, Summary]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, ledger: ServiceLedger, submissions: Sequence[Submission]) -> dict[str, Summary]:
        """Give campaigns' summaries, by id, as of their sequence or later."""
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
            fresh = ledger.summaries({campaign_id: _mode(each) for campaign_id, each in missing.items()})
            with self._lock:
                for campaign_id, summary in fresh.items():
                    self._kept[campaign_id] = (missing[campaign_id].campaign.sequence, summary)
                    self._kept.move_to_end(campaign_id)
                while len(self._kept) > _MOST_SUMMARIES:
                    self._kept.popitem(last=False)
            found |= fresh
        return found


def _mode(submission: Submission) -> Mode | None:
    """Tell whether small or large values are better; None where no single number says it."""
    objective = submission.campaign.specification["objective"]
    mode: Mode | None = None if isinstance(objective, list) else objective["mode"]
    return mode
