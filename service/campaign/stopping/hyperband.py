"""Hyperband (arXiv:1603.06560): several successive halvings side by side.

Where rankings of early rungs mislead, some trials should meet them late. Points are
dealt to brackets, each with a successive halving of its own: bracket s has the last s of the S rungs, bracket 0 none,
and the share of the points in proportion to (S + 1) / (s + 1) * reduction_factor^s, which spends about as much on each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.outcomes import Mode
from spectune.service.campaign.stopping.halving import RungDecision, RungOutcome, SuccessiveHalving


class Hyperband:
    """Several successive halvings side by side, which begin at different rungs.

    Args:
        rungs: The steps at which trials may be compared, rising.
        reduction_factor: One of so many goes on.
        point_of: Gives the index of a trial's point; those of one point meet the same rungs.
        mode: Whether small or large values are better.
        deterministic: Whether decisions must not depend on the order of arrival.
    """

    def __init__(
        self,
        rungs: Sequence[int],
        *,
        reduction_factor: int,
        point_of: Callable[[int], int] = lambda trial: trial,
        mode: Mode = "minimize",
        deterministic: bool = False,
    ) -> None:
        self._rungs = sorted(rungs)
        self._brackets = [
            SuccessiveHalving(each, reduction_factor=reduction_factor, mode=mode, deterministic=deterministic)
            for each in (self._rungs[skipped:] for skipped in range(len(self._rungs) + 1))
        ]
        most = len(self._rungs)
        self._weights = [(most + 1) / (left + 1) * float(reduction_factor) ** left for left in range(most, -1, -1)]
        self._dealt: list[int] = []  # the bracket of each point, by its index
        self._num_dealt = [0] * len(self._weights)
        self._point_of = point_of

    def begin(self, trial: int) -> None:
        """Let a trial take part in its point's bracket."""
        self._bracket(trial).begin(trial)

    def end(self, trial: int, outcome: TrialState) -> None:
        """Let a trial take part no more."""
        self._bracket(trial).end(trial, outcome)

    def submit(self, rung: int, reports: Iterable[tuple[int, float]]) -> dict[int, RungDecision]:
        """Enter all values of a report, then decide on each; below its bracket's first rung a trial goes on."""
        if rung not in self._rungs:
            raise ValueError(f"the rungs are {self._rungs}: got step {rung}")
        of_bracket: dict[int, list[tuple[int, float]]] = {}
        for trial, value in reports:
            of_bracket.setdefault(self.bracket_of(self._point_of(trial)), []).append((trial, value))
        decisions: dict[int, RungDecision] = {}
        for bracket, mine in of_bracket.items():
            if rung in self._rungs[bracket:]:
                decisions |= self._brackets[bracket].submit(rung, mine)
            else:
                first = self._rungs[bracket] if bracket < len(self._rungs) else "none"
                reason = f"its bracket's first rung is {first}"
                decisions |= {trial: RungDecision(RungOutcome.KEEP, reason) for trial, _ in mine}
        return decisions

    def restore(self, reports: Mapping[int, Mapping[int, float]], *, ended: Mapping[int, TrialState]) -> None:
        """Take over what the ledger knows."""
        for index, bracket in enumerate(self._brackets):
            mine = {trial: told for trial, told in reports.items() if self.bracket_of(self._point_of(trial)) == index}
            bracket.restore(mine, ended={trial: outcome for trial, outcome in ended.items() if trial in mine})

    def bracket_of(self, point: int) -> int:
        """Return how many rungs a point's trials skip; points are dealt to the bracket furthest below its share."""
        while len(self._dealt) <= point:
            num_after = len(self._dealt) + 1
            total = sum(self._weights)
            shares = [num_after * weight / total for weight in self._weights]
            lacks = [share - num for share, num in zip(shares, self._num_dealt, strict=True)]
            self._dealt.append(lacks.index(max(lacks)))
            self._num_dealt[self._dealt[-1]] += 1
        return self._dealt[point]

    def _bracket(self, trial: int) -> SuccessiveHalving:
        return self._brackets[self.bracket_of(self._point_of(trial))]
