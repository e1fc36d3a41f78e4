"""The search of one arm: which points it tries, in which order, and what it has learnt from them.

Everything a study decides is a function of plain data (points given, reports, outcomes), so a study restored from the
ledger goes on exactly as the one that was interrupted would have.

An adaptive sampler learns little from what is asked all at once (measured: TPE in one batch of 64 is as good as random
search), so at most max(1, points // 8) of its points are open at a time. With `deterministic` its points are asked in
generations of that fixed size: the next one begins when all points of those before have ended, and sees only them, so
that the points do not depend on which finished first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Any, Literal, Self, TypeAlias

from search_spaces import Space
from search_spaces.axes import Coordinate
from search_spaces.optuna_domains import distributions
from service.campaign.lifecycle import TrialState
from service.campaign.outcomes import Mode, SeedHistory, point_outcome
from service.campaign.sampling import NUM_STARTUP, is_told, random_units, tpe_coordinates

SamplerName: TypeAlias = Literal["random", "tpe"]

_OPEN_SHARE = 8  # an adaptive sampler has at most this part of its points open
_MAX_REPEATS = 10  # points TPE may repeat in one ask before the point is drawn at random instead
_MAX_DRAWS = 1000  # random points that may repeat before the space counts as exhausted


class Origin(StrEnum):
    """Where a point came from."""

    INITIAL = "initial"  # the user gave it
    SAMPLER = "sampler"
    REDRAWN = "redrawn"  # the adaptive sampler only repeated itself, so it was drawn at random


class NoPoint(StrEnum):
    """Why an ask gave no point."""

    WAITING = "waiting"  # for open points to end
    POINTS_GIVEN = "points_given"  # all that the arm was allowed
    SPACE_EXHAUSTED = "space_exhausted"  # 1000 random draws in a row were known already

    @property
    def is_final(self) -> bool:
        """Whether no later ask will give a point either."""
        return self is not NoPoint.WAITING


@dataclass(frozen=True)
class Point:
    """One configuration of an arm.

    Attributes:
        index: Its number within the arm, from 0.
        config: Every hyperparameter that is set, the fixed ones included.
        origin: Where it came from.
        coordinates: Where it lies on every axis of the space, those that do not count in it included.
    """

    index: int
    config: Mapping[str, Any]
    origin: Origin
    coordinates: Mapping[str, Coordinate]

    @property
    def ask(self) -> dict[str, Any]:
        """What has to be kept beside index and config to restore a study, as JSON."""
        return {"origin": self.origin.value, "coordinates": dict(self.coordinates)}

    @classmethod
    def from_ask(cls, index: int, config: Mapping[str, Any], ask: Mapping[str, Any]) -> Self:
        """Make the point again from what was kept."""
        return cls(index=index, config=config, origin=Origin(ask["origin"]), coordinates=ask["coordinates"])


class ArmStudy:
    """The points of one arm, and how they did.

    Args:
        space: What varies.
        fixed: Hyperparameters that every point has besides.
        sampler: `random` or `tpe`.
        points: How many points there are to be.
        seeds: How many trials each point has.
        mode: Whether small or large values are better.
        search_seed: The campaign's.
        arm_index: Which arm this is; arms with equal spaces get different points.
        initial_points: Configurations within the space, tried first; repeats among them are passed over.
        deterministic: Whether points must not depend on which trials end first.
        lanes: At most so many open points of an adaptive sampler, or None for as many as its rule allows.
    """

    def __init__(
        self,
        space: Space,
        fixed: Mapping[str, Any],
        *,
        sampler: SamplerName,
        points: int,
        seeds: int = 1,
        mode: Mode = "minimize",
        search_seed: int = 0,
        arm_index: int = 0,
        initial_points: Sequence[Mapping[str, Any]] = (),
        deterministic: bool = False,
        lanes: int | None = None,
    ) -> None:
        self._space = space
        self._fixed = dict(fixed)
        self._is_adaptive = sampler == "tpe"
        self._num_points = points
        self._num_seeds = seeds
        self._mode = mode
        self._search_seed = search_seed
        self._arm = arm_index
        completed = [space.completed(config) for config in initial_points]
        self._initial = list({_fingerprint(config): config for config in completed}.values())
        self._deterministic = deterministic
        most_open = max(1, points // _OPEN_SHARE)
        self._lanes = most_open if lanes is None else max(1, min(lanes, most_open))
        self._distributions = distributions(space)
        self._points: list[Point] = []
        self._histories: list[list[SeedHistory]] = []
        self._given: set[str] = set()
        self._is_exhausted = False

    # Asking

    def ask(self) -> Point | None:
        """Give the next point, which was never given before; None where `no_point` tells why."""
        if self.no_point is not None:
            return None
        point = self._next_point(len(self._points))
        if point is None:
            self._is_exhausted = True
        else:
            self._enter(point, {})
        return point

    @property
    def no_point(self) -> NoPoint | None:
        """Why the next ask would give no point; None where it would give one, or find the space exhausted."""
        if len(self._points) >= self._num_points:
            return NoPoint.POINTS_GIVEN
        if self._is_exhausted:
            return NoPoint.SPACE_EXHAUSTED
        if self._is_adaptive and self._num_open_before() >= (1 if self._deterministic else self._lanes):
            return NoPoint.WAITING
        return None

    @property
    def num_askable(self) -> int:
        """Count the points that asks would give now, were none of them to find the space exhausted."""
        if self.no_point is not None:
            return 0
        left = self._num_points - len(self._points)
        if not self._is_adaptive:
            return left
        return min(left, self._lanes - (len(self._points) % self._lanes if self._deterministic else self._num_open()))

    @property
    def most_open(self) -> int:
        """Count the points that may ever be open at the same time."""
        return self._lanes if self._is_adaptive else self._num_points

    # Telling

    def report(self, point_index: int, seed_index: int, step: int, value: float) -> None:
        """Enter the objective of one trial at one step; a step that is known already is passed over."""
        history = self._histories[point_index][seed_index]
        if step not in history.reports:
            reports = {**history.reports, step: value}
            self._histories[point_index][seed_index] = replace(history, reports=reports)

    def finish(self, point_index: int, seed_index: int, outcome: TrialState, value: float | None = None) -> None:
        """Enter how one trial ended; saying the same again is harmless.

        Args:
            point_index: Its point.
            seed_index: Its seed.
            outcome: A terminal state.
            value: The final objective of a COMPLETED trial; one that is not finite counts as diverged.

        Raises:
            ValueError: The outcome is no end, or the trial has ended otherwise.
        """
        history = self._histories[point_index][seed_index]
        if not outcome.is_terminal:
            raise ValueError(f"point {point_index}, seed {seed_index}: a trial does not end so: got {outcome}")
        if history.outcome not in (None, outcome):
            raise ValueError(f"point {point_index}, seed {seed_index} ended as {history.outcome}: got {outcome}")
        if history.outcome is None:
            self._histories[point_index][seed_index] = replace(history, outcome=outcome, value=value)

    # Rebuilding

    def restore(self, points: Iterable[tuple[Point, Mapping[int, SeedHistory]]]) -> None:
        """Take over the points that an interrupted study has given, from plain data.

        Args:
            points: Each point with what is known of its seeds; seeds that are left out are open.
        """
        assert not self._points, f"only a fresh study is restored: got one with {len(self._points)} points"
        for point, seeds in sorted(points, key=lambda each: each[0].index):
            assert point.index == len(self._points), f"expected point {len(self._points)}: got {point.index}"
            self._enter(point, seeds)

    def history(self) -> list[tuple[Point, dict[int, SeedHistory]]]:
        """Give the plain data that `restore` takes."""
        return [(point, dict(enumerate(seeds))) for point, seeds in zip(self._points, self._histories, strict=True)]

    # Inside

    def _enter(self, point: Point, seeds: Mapping[int, SeedHistory]) -> None:
        self._points.append(point)
        self._histories.append([seeds.get(index, SeedHistory()) for index in range(self._num_seeds)])
        self._given.add(_fingerprint(point.config))

    def _num_open(self) -> int:
        return sum(point_outcome(seeds) is None for seeds in self._histories)

    def _num_open_before(self) -> int:
        """Count the open points that the next ask must take into account."""
        return sum(point_outcome(seeds) is None for seeds in self._histories[: self._num_seen()])

    def _num_seen(self) -> int:
        """Count the points whose ends the next ask may look at."""
        asked = len(self._points)
        return asked - asked % self._lanes if self._deterministic else asked

    def _next_point(self, index: int) -> Point | None:
        if index < len(self._initial):
            return self._initial_point(index)
        is_modelled = self._is_adaptive and self._knows_enough()
        if is_modelled:
            for coordinates in islice(self._tpe(index), _MAX_REPEATS):
                if self._is_new(coordinates):
                    return self._point(index, Origin.SAMPLER, coordinates)
        for unit in islice(self._random(index), _MAX_DRAWS):
            coordinates = self._space.coordinates_at(unit)
            if self._is_new(coordinates):
                return self._point(index, Origin.REDRAWN if is_modelled else Origin.SAMPLER, coordinates)
        return None

    def _initial_point(self, index: int) -> Point:
        """Make a point the user gave; on axes on which it does not depend it lies anywhere."""
        config = {**self._fixed, **self._initial[index]}
        anywhere = self._space.coordinates_at(next(self._random(index)))
        return Point(index, config, Origin.INITIAL, {**anywhere, **self._space.coordinates(self._initial[index])})

    def _knows_enough(self) -> bool:
        return sum(is_told(seeds) for seeds in self._histories[: self._num_seen()]) >= NUM_STARTUP

    def _tpe(self, index: int) -> Iterator[dict[str, Coordinate]]:
        """Ask TPE; ends that it may not look at yet are open to it."""
        num_seen = self._num_seen()
        unseen = [[SeedHistory()] for _ in self._histories[num_seen:]]
        known = [*self._histories[:num_seen], *unseen]
        return tpe_coordinates(
            [(point.coordinates, seeds) for point, seeds in zip(self._points, known, strict=True)],
            distributions=self._distributions,
            mode=self._mode,
            search_seed=self._search_seed,
            arm=self._arm,
            ask=index,
        )

    def _random(self, index: int) -> Iterator[list[float]]:
        return random_units(self._search_seed, arm=self._arm, ask=index, num_axes=self._space.num_axes)

    def _point(self, index: int, origin: Origin, coordinates: Mapping[str, Coordinate]) -> Point:
        return Point(index, {**self._fixed, **self._space.config(coordinates)}, origin, coordinates)

    def _is_new(self, coordinates: Mapping[str, Coordinate]) -> bool:
        return _fingerprint({**self._fixed, **self._space.config(coordinates)}) not in self._given


def _fingerprint(config: Mapping[str, Any]) -> str:
    """Write a configuration so that equal ones are equal text: 12 digits, 1 like 1.0, names in order."""
    return json.dumps({name: _plain(value) for name, value in config.items()}, sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(f"{value:.12g}") + 0.0  # -0.0 becomes 0.0
    return value
