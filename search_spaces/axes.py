"""Axes: the coordinates that a domain is searched on, each with its map from the unit interval.

A domain may need several (weight decay: zero or not, and how much), and they are always the same ones, whatever the
values: samplers that model all axes together (multivariate TPE) need a search space that does not change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Coordinate: TypeAlias = float | int


@dataclass(frozen=True)
class RealAxis:
    """An interval, uniform or uniform in the logarithm."""

    low: float
    high: float
    log: bool = False

    def decode(self, unit: float) -> float:
        """Map [0, 1] onto [low, high], increasing."""
        if self.log:
            value = math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + unit * (self.high - self.low)
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class WholeAxis:
    """The integers of [low, high], equally likely or with probability like 1 / value."""

    low: int
    high: int
    log: bool = False

    def decode(self, unit: float) -> int:
        """Map [0, 1] onto low ... high, increasing; each integer owns the interval half a unit around it."""
        around = RealAxis(self.low - 0.5, self.high + 0.5, self.log)
        return min(max(math.floor(around.decode(unit) + 0.5), self.low), self.high)


@dataclass(frozen=True)
class OptionAxis:
    """An index without order; `shares` are the probabilities of 0, 1, ... under a uniform draw."""

    shares: tuple[float, ...]

    def decode(self, unit: float) -> int:
        """Map [0, 1] onto an index."""
        total = 0.0
        for index, share in enumerate(self.shares):
            total += share
            if unit < total:
                return index
        return len(self.shares) - 1


Axis: TypeAlias = RealAxis | WholeAxis | OptionAxis


def equal_options(num_options: int) -> OptionAxis:
    """Make an axis whose options are equally likely."""
    return OptionAxis((1.0 / num_options,) * num_options)


def decode_all(axes: Sequence[Axis], unit: Sequence[float]) -> list[Coordinate]:
    """Map a point of the unit cube onto the axes.

    Raises:
        ValueError: The point has another number of coordinates than there are axes, or lies outside [0, 1].
    """
    if len(unit) != len(axes):
        raise ValueError(f"a point of this space has {len(axes)} coordinates: got {len(unit)}")
    if not all(0.0 <= each <= 1.0 for each in unit):
        raise ValueError(f"coordinates lie in [0, 1]: got {list(unit)}")
    return [axis.decode(each) for axis, each in zip(axes, unit, strict=True)]
