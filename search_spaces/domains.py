"""Domains: the values one hyperparameter may take, and how they are spread.

    {uniform: [low, high]}                 reals, uniform
    {log_uniform: [low, high]}             reals > 0, uniform in log v
    {one_minus_log_uniform: [low, high]}   reals < 1, uniform in log(1 - v): momentum, percentile
    {zero_or_log_uniform: [low, high]}     0 for a quarter of the draws, else reals > 0, uniform in log v: weight decay
    {integer: [low, high]}                 integers, equally likely
    {log_integer: [low, high]}             integers >= 1, probability like 1 / v
    {choice: [a, b, ...]}                  the values listed (scalars or lists), equally likely, without order
    {fixed: a}                             one value
    any of these beside when: {other: b}   the same, but only where the hyperparameter `other` is b (or in [b, c])

Bounds are those of the value and belong to the domain. A domain is searched on axes (`axes.py`); it turns their
coordinates into its value and back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from spectune.search_spaces.axes import Axis, Coordinate, OptionAxis, RealAxis, WholeAxis, equal_options
from spectune.search_spaces.json_values import is_integer, is_number, is_same
from spectune.search_spaces.scales import Scale

Coordinates: TypeAlias = Mapping[str, Coordinate]

ZERO_SHARE = 0.25  # how many draws of `zero_or_log_uniform` are zero: one point of four probes "none at all"


class Domain(ABC):
    """The values one hyperparameter may take. Unless a domain says otherwise, its one axis holds its value."""

    kind: ClassVar[str]

    @abstractmethod
    def axes(self, name: str) -> dict[str, Axis]:
        """Return the axes it is searched on, named after the hyperparameter."""

    def value(self, name: str, coordinates: Coordinates) -> Any:
        """Turn coordinates on its axes into its value."""
        return coordinates[name]

    def coordinates(self, name: str, value: Any) -> dict[str, Coordinate]:
        """Turn a value into coordinates; axes on which it does not depend are left out."""
        return {name: value}

    @abstractmethod
    def extremes(self) -> tuple[Any, ...]:
        """List the values between which all others lie, or all values where they have no order."""

    @abstractmethod
    def scale(self) -> Scale | None:
        """Return how its values are spread; None for values without an order."""

    @abstractmethod
    def problem_with(self, value: Any) -> str | None:
        """Return why a value is not in the domain; None where it is."""

    @abstractmethod
    def argument(self) -> Any:
        """Return what stands behind the domain's name in a specification."""

    def document(self) -> dict[str, Any]:
        """Write the domain as a specification does."""
        return {self.kind: self.argument()}


@dataclass(frozen=True)
class _Interval(Domain):
    low: float
    high: float

    def extremes(self) -> tuple[float, ...]:
        return (self.low, self.high)

    def problem_with(self, value: Any) -> str | None:
        if not is_number(value):
            return "a finite number is needed"
        return None if self.low <= value <= self.high else f"outside [{self.low}, {self.high}]"

    def argument(self) -> list[float]:
        return [self.low, self.high]


@dataclass(frozen=True)
class Uniform(_Interval):
    """Reals of [low, high]."""

    kind: ClassVar[str] = "uniform"

    def scale(self) -> Scale:
        """Return how its values are spread."""
        return Scale(self.low, self.high)

    def axes(self, name: str) -> dict[str, Axis]:
        """Search the value itself."""
        return {name: RealAxis(self.low, self.high)}


@dataclass(frozen=True)
class LogUniform(_Interval):
    """Reals of [low, high], 0 < low, uniform in the logarithm."""

    kind: ClassVar[str] = "log_uniform"

    def scale(self) -> Scale:
        """Return how its values are spread."""
        return Scale(self.low, self.high, "log")

    def axes(self, name: str) -> dict[str, Axis]:
        """Search the logarithm."""
        return {name: RealAxis(self.low, self.high, log=True)}


@dataclass(frozen=True)
class OneMinusLogUniform(_Interval):
    """Reals of [low, high], high < 1, whose distance to 1 is uniform in the logarithm."""

    kind: ClassVar[str] = "one_minus_log_uniform"

    def scale(self) -> Scale:
        """Return how its values are spread."""
        return Scale(self.low, self.high, "one_minus_log")

    def axes(self, name: str) -> dict[str, Axis]:
        """Search the logarithm of the distance to 1."""
        return {f"1-{name}": RealAxis(1.0 - self.high, 1.0 - self.low, log=True)}

    def value(self, name: str, coordinates: Coordinates) -> float:
        """Turn the distance into the value, which rounding must not carry out of its bounds."""
        return min(max(1.0 - coordinates[f"1-{name}"], self.low), self.high)

    def coordinates(self, name: str, value: Any) -> dict[str, Coordinate]:
        """Turn the value into its distance, which rounding must not carry out of its bounds."""
        return {f"1-{name}": min(max(1.0 - value, 1.0 - self.high), 1.0 - self.low)}


@dataclass(frozen=True)
class ZeroOrLogUniform(_Interval):
    """Zero, or reals of [low, high], 0 < low, uniform in the logarithm."""

    kind: ClassVar[str] = "zero_or_log_uniform"

    def scale(self) -> Scale:
        """Return how its values above zero are spread."""
        return Scale(self.low, self.high, "log")

    def axes(self, name: str) -> dict[str, Axis]:
        """Search a flag, and an amount that is there even where the flag says zero."""
        flag = OptionAxis((1.0 - ZERO_SHARE, ZERO_SHARE))
        return {f"{name}=0": flag, name: RealAxis(self.low, self.high, log=True)}

    def value(self, name: str, coordinates: Coordinates) -> float:
        """Return the amount, or zero where the flag says so."""
        return 0.0 if coordinates[f"{name}=0"] else coordinates[name]

    def coordinates(self, name: str, value: Any) -> dict[str, Coordinate]:
        """Set the flag; zero leaves the amount open."""
        return {f"{name}=0": 1} if value == 0 else {f"{name}=0": 0, name: value}

    def extremes(self) -> tuple[float, ...]:
        """List zero and the bounds."""
        return (0.0, self.low, self.high)

    def problem_with(self, value: Any) -> str | None:
        """Accept zero and the interval."""
        problem = super().problem_with(value)
        if problem is None or not is_number(value):
            return problem
        return None if value == 0 else f"neither 0 nor inside [{self.low}, {self.high}]"


@dataclass(frozen=True)
class Integer(_Interval):
    """Integers of low ... high."""

    kind: ClassVar[str] = "integer"
    low: int
    high: int

    def scale(self) -> Scale:
        """Return how its values are spread."""
        return Scale(self.low, self.high, is_whole=True)

    def axes(self, name: str) -> dict[str, Axis]:
        """Search the value itself."""
        return {name: WholeAxis(self.low, self.high)}

    def problem_with(self, value: Any) -> str | None:
        """Accept integers between the bounds."""
        return super().problem_with(value) if is_integer(value) else "an integer is needed"


@dataclass(frozen=True)
class LogInteger(Integer):
    """Integers of low ... high, 1 <= low, with probability like 1 / value."""

    kind: ClassVar[str] = "log_integer"

    def scale(self) -> Scale:
        """Return how its values are spread."""
        return Scale(self.low, self.high, "log", is_whole=True)

    def axes(self, name: str) -> dict[str, Axis]:
        """Search the logarithm."""
        return {name: WholeAxis(self.low, self.high, log=True)}


@dataclass(frozen=True)
class Choice(Domain):
    """One of several values without order: JSON scalars or lists of them, all different."""

    kind: ClassVar[str] = "choice"
    options: tuple[Any, ...]

    def scale(self) -> None:
        """Return nothing: options have no order."""

    def axes(self, name: str) -> dict[str, Axis]:
        """Search the index of the option."""
        return {name: equal_options(len(self.options))}

    def value(self, name: str, coordinates: Coordinates) -> Any:
        """Return the option at the index."""
        return self.options[int(coordinates[name])]

    def coordinates(self, name: str, value: Any) -> dict[str, Coordinate]:
        """Find the option's index."""
        return {name: next(index for index, option in enumerate(self.options) if is_same(option, value))}

    def extremes(self) -> tuple[Any, ...]:
        """List every option."""
        return self.options

    def problem_with(self, value: Any) -> str | None:
        """Accept the options."""
        if any(is_same(option, value) for option in self.options):
            return None
        return f"none of {list(self.options)}"

    def argument(self) -> list[Any]:
        """List the options."""
        return list(self.options)


@dataclass(frozen=True)
class Fixed(Domain):
    """One value; it is part of the configuration and not searched."""

    kind: ClassVar[str] = "fixed"
    only: Any

    def scale(self) -> None:
        """Return nothing: there is but one value."""

    def axes(self, name: str) -> dict[str, Axis]:
        """Search nothing."""
        return {}

    def value(self, name: str, coordinates: Coordinates) -> Any:
        """Return the one value."""
        return self.only

    def coordinates(self, name: str, value: Any) -> dict[str, Coordinate]:
        """Need none."""
        return {}

    def extremes(self) -> tuple[Any, ...]:
        """List the one value."""
        return (self.only,)

    def problem_with(self, value: Any) -> str | None:
        """Accept the one value."""
        return None if is_same(self.only, value) else f"fixed to {self.only!r}"

    def argument(self) -> Any:
        """Return the one value."""
        return self.only
