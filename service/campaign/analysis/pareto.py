"""Points that nothing dominates: no other is at least as good in every respect and better in one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from spectune.service.campaign.analysis.leaderboard import ArmStanding, PointStanding
from spectune.service.campaign.model.outcomes import mean
from spectune.service.campaign.model.records import Observation, TrialRecord
from spectune.service.campaign.specification.specification import Specification

_STEP_TIME = "step_time_seconds"


@dataclass(frozen=True)
class ParetoPoint:
    """A point that nothing dominates: what it costs, by name, as it was measured."""

    arm: int
    point: int
    costs: Mapping[str, float]


def pareto_front(costs: Sequence[tuple[float, ...]]) -> list[int]:
    """List the indices of the points that nothing dominates, by the first cost; of equal points all.

    Args:
        costs: For each point what it costs, small is good; all finite, equally many.
    """
    ordered = sorted(range(len(costs)), key=lambda index: costs[index])
    front: list[int] = []
    for index in ordered:  # whoever dominates a point comes before it
        if not any(_dominates(costs[other], costs[index]) for other in front):
            front.append(index)
    return front


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def campaign_front(
    specification: Specification,
    standings: Sequence[ArmStanding],
    trials: Sequence[TrialRecord],
    observations: Iterable[Observation],
) -> list[ParetoPoint]:
    """Find the points of the search that nothing dominates: in two objectives or, where there is one, in it and time.

    Step time counts only where every one of them was measured by a trial that had its worker for itself.

    Args:
        specification: What was asked for.
        standings: Of every arm.
        trials: All trials.
        observations: At least the last one of each trial.
    """
    last = {trial.number: trial for trial in trials}
    metrics = {each.trial: each.metrics for each in observations if each.step == last[each.trial].last_step}
    ranked = [(standing.arm, point) for standing in standings for point in standing.ranked]
    numbers = [number for _, point in ranked for number in point.trials]
    is_timed = all(metrics.get(number, {}).get("timing_valid") == 1 for number in numbers)

    def costs(point: PointStanding) -> dict[str, float]:
        told = {specification.objective.metric: point.value}
        for further in specification.objectives[1:]:
            told[further.metric] = mean([metrics[number][further.metric] for number in point.trials])
        if len(told) == 1:
            told["device_seconds"] = mean([last[number].device_seconds for number in point.trials])
            if is_timed:
                told[_STEP_TIME] = mean([metrics[number][_STEP_TIME] for number in point.trials])
        return told

    found = [ParetoPoint(arm, point.point, costs(point)) for arm, point in ranked]
    signs = [1.0 if each.mode == "minimize" else -1.0 for each in specification.objectives]
    finite = [point for point in found if all(map(math.isfinite, point.costs.values()))]
    costs_of = [tuple(s * c for s, c in zip_longest(signs, point.costs.values(), fillvalue=1.0)) for point in finite]
    return [finite[index] for index in pareto_front(costs_of)]
