"""Which point is best, of an arm and of a campaign, and how its value was obtained. Every door asks here.

An arm's own best point is its best in the finals or, before any has completed there, in the search. Arms are compared
with each other by their finals if every arm that has a completed point has one there too, else by the search: the best
value of a search is its luckiest as well, so the two are never compared. Equal arms are ordered by trial number.

What counts as a completed point, and where NaN, infinities and trials that were stopped or failed rank, is the rule of
`leaderboard.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from spectune.service.campaign.analysis.comparability import lacking_sentence
from spectune.service.campaign.analysis.leaderboard import ArmStanding, PointStanding, place_of
from spectune.service.campaign.model.numbers import interval_text, to_json
from spectune.service.campaign.model.outcomes import Mode
from spectune.service.campaign.model.progress import Tally
from spectune.service.campaign.model.records import CampaignRecord, Phase

TWO_OBJECTIVES = "with two objectives no point is simply the best"
NONE_COMPLETED = "no point has completed"


@dataclass(frozen=True)
class BestPoint:
    """A point that is the best of an arm, or of all.

    Attributes:
        arm: Index of its arm.
        phase: Where its value comes from.
        standing: The point.
    """

    arm: int
    phase: Phase
    standing: PointStanding

    @property
    def text(self) -> str:
        """Its value, with half the width of the 95 % interval if it is a mean."""
        return interval_text(self.standing.value, self.standing.half_width)

    @property
    def how(self) -> str:
        """How its value was obtained."""
        return how_obtained(self.phase, num_seeds=len(self.standing.trials))

    def document(self, arm_name: str) -> dict[str, Any]:
        """Return it as plain JSON."""
        point = self.standing
        return {
            "arm": arm_name,
            "point": point.point,
            "trials": list(point.trials),
            "value": to_json(point.value),
            "half_width": None if point.half_width is None else to_json(point.half_width),
            "phase": self.phase.value,
            "how": self.how,
        }


@dataclass(frozen=True)
class Ranking:
    """How the arms of a campaign compare.

    Attributes:
        phase: What they are compared by: the finals, or the search.
        arms: The best first; those without a completed point come last.
        best: The best point of all; None if none may be named.
        why_none: Why none may be named; empty if one is.
    """

    phase: Phase
    arms: tuple[ArmStanding, ...]
    best: BestPoint | None
    why_none: str


def own_best(standing: ArmStanding) -> BestPoint | None:
    """Return an arm's own best point; None before any has completed."""
    if standing.final is not None:
        return BestPoint(standing.arm, Phase.FINAL, standing.final)
    return None if standing.best is None else BestPoint(standing.arm, Phase.SEARCH, standing.best)


def rank_arms(standings: Sequence[ArmStanding], *, modes: Sequence[Mode], not_comparable: str = "") -> Ranking:
    """Compare the arms of a campaign.

    Args:
        standings: Of every arm; at least the best point of its search and of its finals.
        modes: Of each objective, whether small or large values are better; points are ranked by the first.
        not_comparable: Why the arms may not be compared, as where they did not get equal shares; no best is named then.
    """
    found = [each for each in standings if each.best is not None]
    phase = Phase.FINAL if found and all(each.final is not None for each in found) else Phase.SEARCH
    compared = {each.arm: _compared(each, phase) for each in found}
    place = place_of(modes[0])
    ordered = sorted(found, key=lambda each: place(compared[each.arm].standing))
    rest = [each for each in standings if each.best is None]
    why_none = TWO_OBJECTIVES if len(modes) > 1 else not_comparable or ("" if found else NONE_COMPLETED)
    best = compared[ordered[0].arm] if ordered and not why_none else None
    return Ranking(phase, (*ordered, *rest), best, why_none)


def campaign_ranking(campaign: CampaignRecord, standings: Sequence[ArmStanding], tallies: Iterable[Tally]) -> Ranking:
    """Compare the arms of a campaign as every door shows them; without equal shares none is the best.

    Args:
        campaign: Whose.
        standings: Of every arm; at least the best point of its search and of its finals.
        tallies: Of all its trials.
    """
    modes = [each["mode"] for each in campaign.objectives]
    return rank_arms(standings, modes=modes, not_comparable=lacking_sentence(campaign, tallies))


def how_obtained(phase: Phase, *, num_seeds: int) -> str:
    """Say in words how a value was obtained that stands beside its half width.

    Args:
        phase: Where it comes from.
        num_seeds: How many completed seeds are behind it.
    """
    if phase is Phase.FINAL:
        return f"mean of finals ± 95 % interval, {num_seeds} seeds" if num_seeds > 1 else "finals, one seed"
    if num_seeds > 1:
        return f"best search value: mean ± 95 % interval, {num_seeds} seeds"
    return "best search value: one seed, so small differences may be chance"


def _compared(standing: ArmStanding, phase: Phase) -> BestPoint:
    point = standing.final if phase is Phase.FINAL else standing.best
    assert point is not None, "only arms with a completed point are compared"
    return BestPoint(standing.arm, phase, point)
