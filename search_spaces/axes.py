"""Axes: the coordinates that a domain is searched on, each with its map from the unit interval and back.

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

    def encode(self, value: float) -> float:
        """Map [low, high] onto [0, 1]; the inverse of `decode`."""
        low, high, at = (math.log(each) if self.log else each for each in (self.low, self.high, value))
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def levels(self, num_levels: int) -> list[float]:
        """List `num_levels` values, evenly spread, both ends included."""
        inner = [self.decode(index / (num_levels - 1)) for index in range(1, num_levels - 1)]
        return [self.low, *inner, self.high]


@dataclass(frozen=True)
class WholeAxis:
    """The integers of [low, high], equally likely or with probability like 1 / value."""

    low: int
    high: int
    log: bool = False

    def decode(self, unit: float) -> int:
        """Map [0, 1] onto low ... high, increasing; each integer owns the interval half a unit around it."""
        return min(max(math.floor(self._around.decode(unit) + 0.5), self.low), self.high)

    def encode(self, value: int) -> float:
        """Map an integer to where it lies in [0, 1], inside the interval that it owns."""
        return self._around.encode(value)

    def levels(self, num_levels: int) -> range:
        """List every integer, however many levels are asked for."""
        return range(self.low, self.high + 1)

    @property
    def _around(self) -> RealAxis:
        return RealAxis(self.low - 0.5, self.high + 0.5, self.log)


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

    def encode(self, value: int) -> float:
        """Map an index to the middle of its share of [0, 1]."""
        return sum(self.shares[:value]) + self.shares[value] / 2

    def levels(self, num_levels: int) -> range:
        """List every index, however many levels are asked for."""
        return range(len(self.shares))


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
