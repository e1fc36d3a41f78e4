"""A campaign's trials in a few numbers, as lists of campaigns show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spectune.service.campaign.analysis.leaderboard import ArmStanding
from spectune.service.campaign.model.progress import Tally


@dataclass(frozen=True)
class Summary:
    """A campaign's trials in a few numbers.

    Attributes:
        tallies: Of all of them.
        standings: Of every arm, with no more of its ranked points than the first.
    """

    tallies: Sequence[Tally]
    standings: Sequence[ArmStanding]
