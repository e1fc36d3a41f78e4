"""Scales: how the values of a domain with an order are spread over its range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Spread: TypeAlias = Literal["linear", "log", "one_minus_log"]

_FORWARD: Final[dict[Spread, Callable[[float], float]]] = {
    "linear": lambda value: value,
    "log": math.log,
    "one_minus_log": lambda value: -math.log(1 - value),
}
_BACKWARD: Final[dict[Spread, Callable[[float], float]]] = {
    "linear": lambda place: place,
    "log": math.exp,
    "one_minus_log": lambda place: 1 - math.exp(-place),
}


@dataclass(frozen=True)
class Scale:
    """A range and how values are spread in it.

    Attributes:
        low: The least value.
        high: The greatest value.
        spread: In what values are evenly spread: themselves, their logarithms, or those of their distances from 1.
        is_whole: Whether values are whole numbers.
    """

    low: float
    high: float
    spread: Spread = "linear"
    is_whole: bool = False

    @property
    def is_log(self) -> bool:
        """Whether values are spread by their logarithms; zero then stands apart."""
        return self.spread == "log"

    def unit(self, value: float) -> float:
        """Map the range onto [0, 1]."""
        forward = _FORWARD[self.spread]
        low, high = forward(self.low), forward(self.high)
        return (forward(value) - low) / (high - low)

    def at(self, unit: float) -> float:
        """Map back, beyond the range too; whole numbers at least one beyond it."""
        forward = _FORWARD[self.spread]
        low, high = forward(self.low), forward(self.high)
        value = _BACKWARD[self.spread](low + unit * (high - low))
        if not self.is_whole:
            return value if self.spread == "one_minus_log" else float(f"{value:.2g}")
        return min(math.floor(value), int(self.low) - 1) if unit < 0 else max(math.ceil(value), int(self.high) + 1)
