"""Domains that count only if other hyperparameters have certain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spectune.search_spaces.axes import Axis, Coordinate
from spectune.search_spaces.domains import Coordinates, Domain
from spectune.search_spaces.json_values import is_same
from spectune.search_spaces.scales import Scale


@dataclass(frozen=True)
class When(Domain):
    """A domain that counts only where other hyperparameters of the space have one of the values given.

    Its axes are always searched, so that the search space stays the same; where a condition does not hold, the value
    is left out of the configuration.

    Attributes:
        domain: The domain itself; no `When` again.
        conditions: For each other hyperparameter, its values that make this one count; all must hold.
    """

    domain: Domain
    conditions: tuple[tuple[str, tuple[Any, ...]], ...]

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Return whether the conditions hold in a configuration; a hyperparameter left out of it fulfils none."""
        return all(
            other in config and any(is_same(config[other], value) for value in values)
            for other, values in self.conditions
        )

    def scale(self) -> Scale | None:
        """Return the domain's."""
        return self.domain.scale()

    def axes(self, name: str) -> dict[str, Axis]:
        """Search as the domain does."""
        return self.domain.axes(name)

    def value(self, name: str, coordinates: Coordinates) -> Any:
        """Turn coordinates into the domain's value, whether it counts or not."""
        return self.domain.value(name, coordinates)

    def coordinates(self, name: str, value: Any) -> dict[str, Coordinate]:
        """Turn a value of the domain into coordinates."""
        return self.domain.coordinates(name, value)

    def extremes(self) -> tuple[Any, ...]:
        """List the domain's."""
        return self.domain.extremes()

    def problem_with(self, value: Any) -> str | None:
        """Accept what the domain accepts."""
        return self.domain.problem_with(value)

    def argument(self) -> Any:
        """Return the domain's."""
        return self.domain.argument()

    def document(self) -> dict[str, Any]:
        """Write the domain and the conditions beside it."""
        return {**self.domain.document(), "when": {other: list(values) for other, values in self.conditions}}
