"""Points drawn from what was observed, by Optuna's samplers: TPE, Gaussian process, NSGA-II.

A sampler is asked through a study that is built anew for every ask and seeded by (search seed, arm, ask, attempt),
because a study that lives on cannot be rebuilt after a crash so that it goes on with the same points: its random state
would be elsewhere. Building it takes 0.1 ms per point (8 ms for 100 points, 80 ms for 1000).

What they are told about a point that has ended:

                TPE                                  Gaussian process              NSGA-II
    COMPLETED   COMPLETE with its value              COMPLETE with its value       COMPLETE with its two values
    STOPPED     PRUNED with its reports; it ranks    COMPLETE behind the worst     not there: two objectives are not
                behind COMPLETE, the furthest first  that completed, by its rank   stopped early
    DIVERGED    PRUNED with the worst finite value   the same, behind STOPPED      COMPLETE behind the worst that
                seen, at step 0: behind STOPPED                                    completed, in either objective
    FAILED      FAIL, which is not looked at
    open        RUNNING: TPE counts it as bad until known better, the Gaussian process as known, NSGA-II not at all

Told to TPE as COMPLETE, a diverged point would rank before all stopped ones and, where few points complete, count as
one of the good. The other two look at nothing but COMPLETE. So that a value of 1e30 does not flatten a Gaussian
process, the points without a value are spread evenly, in the order of their ranks, over a range as wide as that of the
values that completed; measured on a bowl where a fifth of all points complete, telling them all the worst value found
nothing better than random search.

NSGA-II's generations are blocks of the points that did not fail, in the order in which they were asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from spectune.search_spaces import Space
from spectune.search_spaces.axes import Coordinate
from spectune.search_spaces.optuna_domains import distributions
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.outcomes import (
    Mode,
    SeedHistory,
    final_values,
    mean,
    mean_reports,
    point_outcome,
    worst_finite,
)

NUM_STARTUP = 10  # points that must have ended before TPE or a Gaussian process models anything; those are random

_ADAPTIVE_STREAM = 1  # sampling.py has the others
_LARGEST_POPULATION = 50  # Optuna's own
_GENERATION = optuna.samplers.NSGAIISampler._get_generation_key()

Told: TypeAlias = tuple[OptunaState, list[float] | None, dict[int, float]]


@dataclass(frozen=True)
class Ask:
    """One ask and everything that may be looked at.

    Attributes:
        space: What varies.
        points: The points so far in the order they were asked for: coordinates on every axis, and the seeds' histories.
        modes: Whether small or large values are better, for each objective.
        num_points: How many points the arm is to have.
        search_seed: The campaign's.
        arm: Index of the arm.
        number: Number of the ask.
    """

    space: Space
    points: Sequence[tuple[Mapping[str, Coordinate], Sequence[SeedHistory]]]
    modes: tuple[Mode, ...]
    num_points: int
    search_seed: int
    arm: int
    number: int

    def seed(self, attempt: int) -> int:
        """Return the seed of one draw for this ask: 32 bits."""
        key = (_ADAPTIVE_STREAM, self.arm, self.number, attempt)
        return int(np.random.SeedSequence(self.search_seed, spawn_key=key).generate_state(1)[0])


def tpe_coordinates(ask: Ask) -> Iterator[dict[str, Coordinate]]:
    """Draw coordinates from TPE, without end: the first is the point, the others replace repeats."""
    ended = [seeds for _, seeds in ask.points if point_outcome(seeds) is not None]
    worst = worst_finite(ended, mode=ask.modes[0])
    told = [_told_to_tpe(seeds, worst) for _, seeds in ask.points]
    return _draws(ask, told, lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=NUM_STARTUP))


def gp_coordinates(ask: Ask) -> Iterator[dict[str, Coordinate]]:
    """Draw coordinates by expected improvement under a Gaussian process, without end; imports torch."""
    return _draws(ask, _told_by_values(ask), lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=1))


def nsga2_coordinates(ask: Ask) -> Iterator[dict[str, Coordinate]]:
    """Draw coordinates by crossing and mutating the points that nothing dominates, without end."""
    size = nsga2_population(ask.num_points)
    told = _told_by_values(ask)
    ranks = np.cumsum([state is not OptunaState.FAIL for state, _, _ in told]) - 1
    notes = [{_GENERATION: int(rank) // size} for rank in ranks]
    return _draws(ask, told, lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=size), notes)


def nsga2_population(num_points: int) -> int:
    """Return how many points a generation of NSGA-II has: a fifth of all, 4 to 50."""
    return min(max(num_points // 5, 4), _LARGEST_POPULATION)


def is_told(seeds: Sequence[SeedHistory]) -> bool:
    """Return whether a sampler learns something from a point: it has ended, and not by an accident."""
    return point_outcome(seeds) in (TrialState.COMPLETED, TrialState.STOPPED, TrialState.DIVERGED)


def mean_values(seeds: Sequence[SeedHistory]) -> list[float]:
    """Average the final values of a COMPLETED point's completed seeds, for each objective."""
    finals = [seed for seed in seeds if seed.outcome is TrialState.COMPLETED]
    further = zip(*(seed.further for seed in finals), strict=True)
    return [mean(final_values(seeds)), *map(mean, further)]


def _draws(
    ask: Ask,
    told: Sequence[Told],
    make_sampler: Callable[[int], BaseSampler],
    notes: Sequence[Mapping[str, Any]] | None = None,
) -> Iterator[dict[str, Coordinate]]:
    """Build the study and ask it again and again, each time with a fresh sampler; what it gave is then forgotten."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    axes = distributions(ask.space)
    study = optuna.create_study(directions=list(ask.modes), sampler=optuna.samplers.RandomSampler(seed=0))
    for index, (coordinates, _) in enumerate(ask.points):
        study.add_trial(_trial(coordinates, told[index], axes, notes[index] if notes else {}))
    attempt = 0
    while True:
        study.sampler = make_sampler(ask.seed(attempt))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = study.ask(fixed_distributions=axes)
        yield dict(trial.params)
        study.tell(trial, state=OptunaState.FAIL)
        attempt += 1


def _trial(
    coordinates: Mapping[str, Coordinate],
    told: Told,
    axes: dict[str, BaseDistribution],
    notes: Mapping[str, Any],
) -> FrozenTrial:
    state, values, reports = told
    return optuna.trial.create_trial(
        state=state,
        values=values,
        params=dict(coordinates),
        distributions=axes,
        intermediate_values=reports,
        system_attrs=dict(notes),
    )


def _told_to_tpe(seeds: Sequence[SeedHistory], worst: float) -> Told:
    outcome = point_outcome(seeds)
    match outcome:
        case None:
            return OptunaState.RUNNING, None, {}
        case TrialState.COMPLETED:
            return OptunaState.COMPLETE, mean_values(seeds)[:1], mean_reports(seeds)
        case TrialState.STOPPED:
            return OptunaState.PRUNED, None, mean_reports(seeds)
        case TrialState.DIVERGED:
            return OptunaState.PRUNED, None, {0: worst}
        case TrialState.FAILED | TrialState.LOST | TrialState.CANCELLED:
            return OptunaState.FAIL, None, {}
        case TrialState.PENDING | TrialState.RUNNING:
            raise AssertionError(f"a point that has ended is in no such state: got {outcome}")
        case _:
            assert_never(outcome)


def _told_by_values(ask: Ask) -> list[Told]:
    """Tell every point that taught something by values, those without any by values behind all that completed."""
    values: dict[int, list[float]] = {}
    without: list[int] = []
    for index, (_, seeds) in enumerate(ask.points):
        if point_outcome(seeds) is TrialState.COMPLETED:
            values[index] = mean_values(seeds)[: len(ask.modes)]
        elif is_told(seeds):
            without.append(index)
    told_values = dict(values)
    for rank, index in enumerate(sorted(without, key=lambda each: order_of_end(ask.points[each][1], ask.modes[0]))):
        columns = list(zip(*values.values(), strict=True)) or [(0.0,)] * len(ask.modes)
        told_values[index] = [
            _behind(column, mode, (rank + 1) / len(without)) for column, mode in zip(columns, ask.modes, strict=True)
        ]
    told: list[Told] = []
    for index, (_, seeds) in enumerate(ask.points):
        if index in told_values:
            told.append((OptunaState.COMPLETE, told_values[index], {}))
        else:
            is_open = point_outcome(seeds) is None
            told.append((OptunaState.RUNNING if is_open else OptunaState.FAIL, None, {}))
    return told


def _behind(values: Sequence[float], mode: Mode, share: float) -> float:
    """Return a value behind the worst, by a share of the range of all (of 1 where they are equal)."""
    low, high = min(values), max(values)
    distance = share * ((high - low) or 1.0)
    return high + distance if mode == "minimize" else low - distance


def order_of_end(seeds: Sequence[SeedHistory], mode: Mode) -> tuple[int, int, float]:
    """Return the sort key of a point that has ended: COMPLETED by value, STOPPED the furthest first, then DIVERGED."""
    sign = 1.0 if mode == "minimize" else -1.0
    outcome = point_outcome(seeds)
    if outcome is TrialState.COMPLETED:
        return 0, 0, sign * mean_values(seeds)[0]
    reports = mean_reports(seeds) if outcome is TrialState.STOPPED else {}
    if not reports:
        return 2, 0, 0.0
    furthest = max(reports)
    return 1, -furthest, sign * reports[furthest]
