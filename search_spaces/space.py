"""A search space: one domain per hyperparameter, the unit cube that is mapped onto it, and its reading from JSON.

Hyperparameters are kept in the order of their names, whatever the order of the document, so that equal documents give
equal points.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any

from spectune.search_spaces.axes import Axis, Coordinate, decode_all
from spectune.search_spaces.conditions import When
from spectune.search_spaces.domains import Domain, Fixed
from spectune.search_spaces.json_values import is_same, json_pointer


class Space(Mapping[str, Domain]):
    """An ordered, unchanging mapping from the names of hyperparameters to their domains.

    Args:
        domains: The domains; the conditions of a `When` name others of them, and never in a circle.

    Raises:
        SpaceError: A condition names no hyperparameter of the space, or depends on itself.
    """

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        self._domains = {name: domains[name] for name in sorted(domains)}
        problems = [problem for name in self._domains for problem in _condition_problems(self._domains, name)]
        if problems:
            raise SpaceError(problems)

    def __getitem__(self, name: str) -> Domain:
        return self._domains[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    def __repr__(self) -> str:
        return f"Space({self._domains!r})"

    @cached_property
    def axes(self) -> dict[str, Axis]:
        """Every axis of every domain, in order; always the same ones, whatever the values."""
        return {axis: made for name, domain in self.items() for axis, made in domain.axes(name).items()}

    @property
    def num_axes(self) -> int:
        """The dimension of the unit cube."""
        return len(self.axes)

    def decode(self, unit: Sequence[float]) -> dict[str, Any]:
        """Map a point of the unit cube to a configuration.

        Args:
            unit: One coordinate in [0, 1] per axis, in the order of `axes`.

        Raises:
            ValueError: Another number of coordinates, or one outside [0, 1].
        """
        return self.config(self.coordinates_at(unit))

    def coordinates_at(self, unit: Sequence[float]) -> dict[str, Coordinate]:
        """Map a point of the unit cube to coordinates on the axes."""
        return dict(zip(self.axes, decode_all(tuple(self.axes.values()), unit), strict=True))

    def unit_at(self, coordinates: Mapping[str, Coordinate]) -> list[float]:
        """Map coordinates on all axes to a point of the unit cube that `coordinates_at` maps back."""
        return [axis.encode(coordinates[name]) for name, axis in self.axes.items()]  # type: ignore[arg-type]

    def grid(self, num_levels: int) -> Iterator[dict[str, Any]]:
        """Yield every configuration of the grid once: all values that can be counted, `num_levels` of each real domain.

        A hyperparameter whose `when` does not hold is left out, so that nothing is given twice.
        """
        yield from self._grid_below({}, self._by_dependence, num_levels)

    def config(self, coordinates: Mapping[str, Coordinate]) -> dict[str, Any]:
        """Turn coordinates on all axes into a configuration; what does not count in it is left out."""
        values: dict[str, Any] = {}
        for name in self._by_dependence:
            domain = self[name]
            if not isinstance(domain, When) or domain.holds(values):
                values[name] = domain.value(name, coordinates)
        return {name: values[name] for name in self if name in values}

    def coordinates(self, config: Mapping[str, Any]) -> dict[str, Coordinate]:
        """Turn a configuration into coordinates; axes on which it does not depend are left out."""
        known = [name for name in self if name in config]
        return {axis: value for name in known for axis, value in self[name].coordinates(name, config[name]).items()}

    def completed(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Put the one value of `fixed` domains into a configuration that leaves them out."""
        return {**{name: domain.only for name, domain in self.items() if isinstance(domain, Fixed)}, **config}

    def problems_with(self, config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """List what keeps a configuration out of the space, as pairs of a hyperparameter's name and a message.

        What is `fixed` may be left out.
        """
        found = []
        config = self.completed(config)
        for name in sorted({*self, *config}):
            if name not in self:
                found.append((name, f"not in the search space{nearest_hint(name, self)}"))
                continue
            domain = self[name]
            counts = not isinstance(domain, When) or domain.holds(config)
            if counts and name not in config:
                found.append((name, "missing"))
            elif not counts and name in config:
                found.append((name, "given, but its `when` does not hold"))
            elif counts and (problem := domain.problem_with(config[name])):
                found.append((name, problem))
        return found

    def document(self) -> dict[str, Any]:
        """Write the space as a specification does."""
        return {name: domain.document() for name, domain in self.items()}

    def _grid_below(self, values: dict[str, Any], names: Sequence[str], num_levels: int) -> Iterator[dict[str, Any]]:
        """Yield the configurations of the grid that begin with some values; `names` are those still open."""
        if not names:
            yield {name: values[name] for name in self if name in values}
            return
        name, domain = names[0], self[names[0]]
        if isinstance(domain, When) and not domain.holds(values):
            yield from self._grid_below(values, names[1:], num_levels)
            return
        for value in _levels(domain, num_levels):
            yield from self._grid_below({**values, name: value}, names[1:], num_levels)

    @cached_property
    def _by_dependence(self) -> tuple[str, ...]:
        """The names, each after those that its conditions ask for."""
        order: list[str] = []

        def visit(name: str) -> None:
            if name not in order:
                for other in _asks_for(self[name]):
                    visit(other)
                order.append(name)

        for name in self:
            visit(name)
        return tuple(order)


class DomainError(ValueError):
    """One thing wrong with the document of a space.

    Attributes:
        pointer: JSON pointer relative to the space, such as `/lr/log_uniform`.
        message: What is wrong, without the value.
        value: What stands there.
    """

    def __init__(self, pointer: str, message: str, value: Any) -> None:
        self.pointer = pointer
        self.message = message
        self.value = value
        super().__init__(f"{pointer}: {message}: got {value!r}")


class SpaceError(ValueError):
    """Everything that is wrong with the document of a space.

    Attributes:
        problems: At least one.
    """

    def __init__(self, problems: Sequence[DomainError]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


def nearest_hint(name: str, valid: Mapping[str, Any] | Sequence[str]) -> str:
    """Suggest the valid name that is most like a wrong one, as the end of a message; empty where none is."""
    near = difflib.get_close_matches(name, list(valid), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _levels(domain: Domain, num_levels: int) -> list[Any]:
    """List the values of a domain for a grid: all that can be counted, of reals so many evenly spread."""
    axes = domain.axes("")
    found: list[Any] = []
    for coordinates in product(*(axis.levels(num_levels) for axis in axes.values())):
        value = domain.value("", dict(zip(axes, coordinates, strict=True)))
        if not any(is_same(value, earlier) for earlier in found):
            found.append(value)
    return found


def _asks_for(domain: Domain) -> tuple[str, ...]:
    return tuple(other for other, _ in domain.conditions) if isinstance(domain, When) else ()


def _condition_problems(domains: Mapping[str, Domain], name: str) -> list[DomainError]:
    unknown = [other for other in _asks_for(domains[name]) if other not in domains]
    if unknown:
        message = "names no other hyperparameter of this space"
        return [
            DomainError(
                json_pointer(name, "when"),
                message + nearest_hint(other, [each for each in domains if each != name]),
                other,
            )
            for other in unknown
        ]
    reached: set[str] = set()
    ahead = list(_asks_for(domains[name]))
    while ahead:
        other = ahead.pop()
        if other == name:
            return [DomainError(json_pointer(name, "when"), "depends on itself", name)]
        if other not in reached:
            reached.add(other)
            ahead += _asks_for(domains[other]) if other in domains else ()
    return []
