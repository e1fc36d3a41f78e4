"""The search of one arm: which points it tries, in which order, and what it has learnt from them.

Everything a study decides is a function of plain data (points given, reports, outcomes), so a study restored from the
ledger goes on exactly as the one that was interrupted would have.

An adaptive sampler learns little from what is asked all at once (measured: TPE in one batch of 64 is as good as random
search), so at most max(1, points // 8) of its points are open at a time. With `deterministic` its points are asked in
generations of that fixed size: the next one begins when all points of those before have ended, and sees only them, so
that the points do not depend on which finished first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import islice
from typing import Any

from spectune.search_spaces import Space
from spectune.search_spaces.axes import Coordinate
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.outcomes import Mode, SeedHistory, point_outcome
from spectune.service.campaign.model.points import Origin, Point, fingerprint
from spectune.service.campaign.search.adaptive import Ask, is_told
from spectune.service.campaign.search.samplers import ADAPTIVE_SAMPLERS, SamplerName
from spectune.service.campaign.search.sampling import random_units, shuffled_grid, sobol_units
from spectune.service.campaign.specification.specification import Specification

_OPEN_SHARE = 8  # an adaptive sampler has at most this part of its points open
_MAX_REPEATS = 10  # points an adaptive sampler may repeat in one ask before the point is drawn at random instead
_MAX_DRAWS = 1000  # random points that may repeat before the space counts as exhausted


class NoPoint(StrEnum):
    """Why an ask gave no point."""

    WAITING = "waiting"  # for open points to end
    POINTS_GIVEN = "points_given"  # all that the arm was allowed
    SPACE_EXHAUSTED = "space_exhausted"  # the grid is given whole, or 1000 draws in a row were known already

    @property
    def is_final(self) -> bool:
        """Whether no later ask will give a point either."""
        return self is not NoPoint.WAITING


class ArmStudy:
    """The points of one arm, and how they did.

    Args:
        space: What varies.
        fixed: Hyperparameters that every point has besides.
        sampler: Where points come from (`samplers.py`).
        points: How many points there are to be.
        seeds: How many trials each point has.
        modes: Whether small or large values are better, for each objective.
        num_levels: Values of each real domain in a grid.
        search_seed: The campaign's.
        arm_index: Which arm this is; arms with equal spaces get different points.
        initial_points: Configurations within the space, tried first; repeats among them are passed over.
        deterministic: Whether points must not depend on which trials end first.
    """

    def __init__(
        self,
        space: Space,
        fixed: Mapping[str, Any],
        *,
        sampler: SamplerName,
        points: int,
        seeds: int = 1,
        modes: tuple[Mode, ...] = ("minimize",),
        num_levels: int | None = None,
        search_seed: int = 0,
        arm_index: int = 0,
        initial_points: Sequence[Mapping[str, Any]] = (),
        deterministic: bool = False,
    ) -> None:
        self._space = space
        self._fixed = dict(fixed)
        self._sampler = sampler
        self._adaptive = ADAPTIVE_SAMPLERS.get(sampler)
        self._num_points = points
        self._num_seeds = seeds
        self._modes = modes
        self._search_seed = search_seed
        self._arm = arm_index
        completed = [space.completed(config) for config in initial_points]
        self._initial = list({fingerprint(config): config for config in completed}.values())
        self._deterministic = deterministic
        self._lanes = max(1, points // _OPEN_SHARE)
        self._grid = self._open_grid(num_levels or 2) if sampler == "grid" else []
        self._points: list[Point] = []
        self._histories: list[list[SeedHistory]] = []
        self._given: set[str] = set()
        self._is_exhausted = False

    # Asking

    def ask(self) -> Point | None:
        """Return the next point, which was never given before; None where `no_point` tells why."""
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
        if self._adaptive is not None and self._num_open_before() >= (1 if self._deterministic else self._lanes):
            return NoPoint.WAITING
        return None

    @property
    def num_askable(self) -> int:
        """Count the points that asks would give now, were none of them to find the space exhausted."""
        if self.no_point is not None:
            return 0
        left = self._num_points - len(self._points)
        if self._adaptive is None:
            return left
        return min(left, self._lanes - (len(self._points) % self._lanes if self._deterministic else self._num_open()))

    @property
    def most_open(self) -> int:
        """Count the points that may ever be open at the same time."""
        return self._lanes if self._adaptive is not None else self._num_points

    # Telling

    def report(self, point_index: int, seed_index: int, step: int, value: float) -> None:
        """Enter the objective of one trial at one step; a step that is known already is passed over."""
        history = self._histories[point_index][seed_index]
        if step not in history.reports:
            reports = {**history.reports, step: value}
            self._histories[point_index][seed_index] = replace(history, reports=reports)

    def finish(
        self,
        point_index: int,
        seed_index: int,
        outcome: TrialState,
        value: float | None = None,
        further: tuple[float, ...] = (),
    ) -> None:
        """Enter how one trial ended; saying the same again is harmless.

        Args:
            point_index: Its point.
            seed_index: Its seed.
            outcome: A terminal state.
            value: The final objective of a COMPLETED trial; one that is not finite counts as diverged.
            further: Its final values of further objectives.

        Raises:
            ValueError: The outcome is no end, or the trial has ended otherwise.
        """
        history = self._histories[point_index][seed_index]
        if not outcome.is_terminal:
            raise ValueError(f"point {point_index}, seed {seed_index}: a trial does not end so: got {outcome}")
        if history.outcome not in (None, outcome):
            raise ValueError(f"point {point_index}, seed {seed_index} ended as {history.outcome}: got {outcome}")
        if history.outcome is None:
            self._histories[point_index][seed_index] = replace(history, outcome=outcome, value=value, further=further)

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
        """Return the plain data that `restore` takes."""
        return [(point, dict(enumerate(seeds))) for point, seeds in zip(self._points, self._histories, strict=True)]

    # Inside

    def _enter(self, point: Point, seeds: Mapping[int, SeedHistory]) -> None:
        self._points.append(point)
        self._histories.append([seeds.get(index, SeedHistory()) for index in range(self._num_seeds)])
        self._given.add(fingerprint(point.config))

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
            return self._point_of(index, Origin.INITIAL, self._initial[index])
        past_initial = index - len(self._initial)
        if self._sampler == "grid":
            is_left = past_initial < len(self._grid)
            return self._point_of(index, Origin.SAMPLER, self._grid[past_initial]) if is_left else None
        if self._sampler == "sobol" and self._space.num_axes:
            units = sobol_units(self._search_seed, arm=self._arm, index=past_initial, num_axes=self._space.num_axes)
            return self._first_new(index, Origin.SAMPLER, map(self._space.coordinates_at, islice(units, _MAX_DRAWS)))
        is_modelled = self._adaptive is not None and self._space.num_axes > 0 and self._knows_enough()
        if self._adaptive is not None and is_modelled:
            modelled = islice(self._adaptive.draw(self._ask_now(index)), _MAX_REPEATS)
            if point := self._first_new(index, Origin.SAMPLER, modelled):
                return point
        drawn = map(self._space.coordinates_at, islice(self._random(index), _MAX_DRAWS))
        return self._first_new(index, Origin.REDRAWN if is_modelled else Origin.SAMPLER, drawn)

    def _first_new(self, index: int, origin: Origin, drawn: Iterable[Mapping[str, Coordinate]]) -> Point | None:
        """Make a point of the first coordinates that were not given before; None where all were."""
        for coordinates in drawn:
            config = {**self._fixed, **self._space.config(coordinates)}
            if fingerprint(config) not in self._given:
                return Point(index, config, origin, coordinates)
        return None

    def _point_of(self, index: int, origin: Origin, config: Mapping[str, Any]) -> Point:
        """Make a point of its configuration; on axes on which it does not depend it lies anywhere."""
        anywhere = self._space.coordinates_at(next(self._random(index)))
        coordinates = {**anywhere, **self._space.coordinates(config)}
        return Point(index, {**self._fixed, **config}, origin, coordinates)

    def _open_grid(self, num_levels: int) -> list[dict[str, Any]]:
        """List the grid without what is given first."""
        first = set(map(fingerprint, self._initial))
        grid = shuffled_grid(self._space, num_levels=num_levels, search_seed=self._search_seed, arm=self._arm)
        return [config for config in grid if fingerprint(config) not in first]

    def _knows_enough(self) -> bool:
        assert self._adaptive is not None, f"only adaptive samplers learn: got {self._sampler}"
        needed = self._adaptive.num_startup(self._space, self._num_points)
        return sum(is_told(seeds) for seeds in self._histories[: self._num_seen()]) >= needed

    def _ask_now(self, index: int) -> Ask:
        """Gather what the sampler may look at; ends that it may not see yet are open to it."""
        num_seen = self._num_seen()
        unseen = [[SeedHistory()] for _ in self._histories[num_seen:]]
        known = [*self._histories[:num_seen], *unseen]
        return Ask(
            space=self._space,
            points=[(point.coordinates, seeds) for point, seeds in zip(self._points, known, strict=True)],
            modes=self._modes,
            num_points=self._num_points,
            search_seed=self._search_seed,
            arm=self._arm,
            number=index,
        )

    def _random(self, index: int) -> Iterator[list[float]]:
        return random_units(self._search_seed, arm=self._arm, ask=index, num_axes=self._space.num_axes)


def arm_study(specification: Specification, index: int) -> ArmStudy:
    """Make the study of one of a campaign's arms, without any point yet."""
    arm, search = specification.arms[index], specification.search
    return ArmStudy(
        arm.search_space,
        arm.fixed,
        sampler=search.sampler,
        points=search.points,
        seeds=search.seeds,
        modes=tuple(objective.mode for objective in specification.objectives),
        num_levels=search.levels,
        search_seed=search.search_seed,
        arm_index=index,
        initial_points=specification.initial_points_of(index),
        deterministic=search.deterministic,
    )
