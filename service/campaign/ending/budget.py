"""What a campaign may spend, and whether that is spent: absolute amounts, so that asking again changes nothing.

    wall_seconds     sum over attempts of (end or now) - claim: neither queue nor pause counts
    device_seconds   the workers' time over all trials, steps redone after a loss included
    trials           trials created, finals and audit included; every arm has an equal share, so that the last ones do
                     not go to whichever arm asks first (`Specification.trials_per_arm`)
    target           not an amount: the campaign has what it wanted once any report is as good

The driver asks after every report, so that no amount is overspent by more than one report of each member. Arms take
turns by what they have used (`service/driver/turns.py`), so whatever ends a campaign, their shares of it are equal
within a report of each worker. Finals and audit count like the search: an arm whose search ends early begins them when
it is its turn, and takes no time from the search of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from spectune.service.campaign.model.outcomes import Mode
from spectune.service.campaign.specification.sections import BudgetSection
from spectune.service.campaign.specification.specification import Specification


class Limit(StrEnum):
    """What ended a campaign before its work was done."""

    WALL_SECONDS = "wall_seconds_spent"
    DEVICE_SECONDS = "device_seconds_spent"
    TARGET = "target_reached"


@dataclass(frozen=True)
class Spending:
    """What a campaign has used so far.

    Attributes:
        wall_seconds: While an attempt ran.
        device_seconds: Of all its trials.
        best: The best finite objective of any report; None before the first.
    """

    wall_seconds: float
    device_seconds: float
    best: float | None = None


@dataclass(frozen=True)
class Exhausted:
    """Why a campaign ends now."""

    limit: Limit
    message: str


def exhausted(
    budget: BudgetSection, spending: Spending, *, target: float | None = None, mode: Mode = "minimize"
) -> Exhausted | None:
    """Return whether a campaign must stop what it is doing; None where it may go on."""
    if target is not None and spending.best is not None and _is_as_good(spending.best, target, mode):
        return Exhausted(Limit.TARGET, f"a report reached {spending.best:g}; the target is {target:g}")
    if budget.wall_seconds is not None and spending.wall_seconds >= budget.wall_seconds:
        return _spent(Limit.WALL_SECONDS, spending.wall_seconds, budget.wall_seconds, "s of wall time")
    if budget.device_seconds is not None and spending.device_seconds >= budget.device_seconds:
        return _spent(Limit.DEVICE_SECONDS, spending.device_seconds, budget.device_seconds, "s of device time")
    return None


class SpendingLimit:
    """Tells a driver when its campaign must end.

    Args:
        specification: What was asked for.
        wall_seconds: How long attempts have run so far.
    """

    def __init__(self, specification: Specification, *, wall_seconds: Callable[[], float]) -> None:
        self._specification = specification
        self._wall_seconds = wall_seconds

    def __call__(self, device_seconds: float, bests: Sequence[float]) -> Exhausted | None:
        """Judge what was spent, and the best objective of each arm that has one."""
        asked = self._specification
        pick = min if asked.objective.mode == "minimize" else max
        spending = Spending(self._wall_seconds(), device_seconds, pick(bests) if bests else None)
        return exhausted(asked.budget, spending, target=asked.target, mode=asked.objective.mode)


def wall_seconds(attempts: Iterable[tuple[int, int | None]], *, now: int) -> float:
    """Add up how long attempts ran.

    Args:
        attempts: For each claimed attempt when it was claimed and when it ended (or was last heard of, where its driver
            was lost); None while it runs. Milliseconds since the epoch.
        now: The time now, in the same.
    """
    return sum(max(0, (now if ended is None else ended) - claimed) for claimed, ended in attempts) / 1000


def _spent(limit: Limit, used: float, allowed: float, what: str) -> Exhausted:
    return Exhausted(limit, f"{used:.4g} of {allowed:g} {what} are spent")


def _is_as_good(value: float, target: float, mode: Mode) -> bool:
    return value <= target if mode == "minimize" else value >= target
