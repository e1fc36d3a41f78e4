"""Trains a trial once more, alone and without a campaign around it, and says how far it comes out elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.campaign.specification import Specification
from service.driver.assignments import AssignmentMaker
from trainers.solo import Outcome, SoloTrial


@dataclass(frozen=True)
class Replayed:
    """What came of a trial that was trained once more.

    Attributes:
        value: Its last objective now; NaN where it diverged.
        expected: Its last objective then.
        deviation: |value - expected| / |expected|; 0 where both are NaN.
        largest: The largest such deviation along the curve.
    """

    value: float
    expected: float
    deviation: float
    largest: float


def replay_trial(
    specification: Specification,
    *,
    arm: str,
    config: Mapping[str, Any],
    seed_index: int,
    curve: Mapping[int, Mapping[str, float]],
) -> Replayed:
    """Train a trial to the last step of its curve and compare the objective at every report.

    Args:
        specification: Its campaign's.
        arm: The name of its arm.
        config: Its hyperparameters.
        seed_index: Its seed.
        curve: Its metrics then, by step; at least one.
    """
    metric = specification.objective.metric
    index = next(place for place, each in enumerate(specification.arms) if each.name == arm)
    maker = AssignmentMaker(specification)
    trial = SoloTrial(maker.setting(arm=index, config=config, seed_index=seed_index))
    deviations, value = [], math.nan
    for step in sorted(curve):
        reached = trial.advance(step) is Outcome.REACHED
        value = trial.report()[metric] if reached else math.nan
        deviations.append(_deviation(value, curve[step][metric]))
        if not reached:
            break
    last = curve[max(curve)][metric]
    return Replayed(value, last, _deviation(value, last), max(deviations))


def _deviation(value: float, expected: float) -> float:
    if (math.isnan(value) and math.isnan(expected)) or value == expected:
        return 0.0
    apart = abs(value - expected) / abs(expected) if expected else math.inf
    return math.inf if math.isnan(apart) else apart
