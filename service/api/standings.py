"""Standings of campaigns, computed once for each state of the ledger: ten thousand trials take a second to rank."""

from __future__ import annotations

import threading
from collections import OrderedDict

from service.campaign.leaderboard import ArmStanding, leaderboard
from service.campaign.submission import Submission
from service.ledger import ServiceLedger

_MOST_KEPT = 64


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
