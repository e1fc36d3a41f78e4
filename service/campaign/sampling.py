"""Where points come from: pure functions of the search seed, the arm, the ask's number and what was observed.

Random points need nothing observed. TPE is asked through a study that is built anew for every ask, because a study that
lives on cannot be rebuilt after a crash so that it goes on with the same points: its random state would be elsewhere.
Building it takes 0.1 ms per point (8 ms for 100 points, 80 ms for 1000).

What TPE is told about a point that has ended:

    COMPLETED   COMPLETE with its value
    STOPPED     PRUNED with its reports; Optuna ranks it behind every COMPLETE, the furthest first
    DIVERGED    PRUNED with the worst finite value seen, at step 0: behind every stopped one. Told as COMPLETE it would
                rank before all stopped ones and, where few points complete, count as one of the good points.
    FAILED      FAIL, which is not looked at
    open        RUNNING, which counts as bad until known better (constant liar)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import assert_never

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from search_spaces.axes import Coordinate
from service.campaign.lifecycle import TrialState
from service.campaign.outcomes import Mode, SeedHistory, final_values, mean_reports, point_outcome, worst_finite

NUM_STARTUP = 10  # points that must have ended before TPE models anything; the ones until then are random

_RANDOM_STREAM, _TPE_STREAM = 0, 1


def random_units(search_seed: int, *, arm: int, ask: int, num_axes: int) -> Iterator[list[float]]:
    """Draw points of the unit cube for one ask, without end: the first is the point, the others replace repeats."""
    draw = 0
    while True:
        sequence = np.random.SeedSequence(search_seed, spawn_key=(_RANDOM_STREAM, arm, ask, draw))
        yield np.random.Generator(np.random.Philox(sequence)).random(num_axes).tolist()
        draw += 1


def tpe_coordinates(
    points: Sequence[tuple[Mapping[str, Coordinate], Sequence[SeedHistory]]],
    *,
    distributions: dict[str, BaseDistribution],
    mode: Mode,
    search_seed: int,
    arm: int,
    ask: int,
) -> Iterator[dict[str, Coordinate]]:
    """Draw coordinates from TPE for one ask, without end: the first is the point, the others replace repeats.

    Args:
        points: The points so far in the order they were asked for: coordinates on every axis, and the seeds' histories.
        distributions: Optuna's form of every axis.
        mode: Whether small or large values are better.
        search_seed: The campaign's.
        arm: Index of the arm.
        ask: Number of the ask.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=mode, sampler=optuna.samplers.RandomSampler(seed=0))
    ended = [seeds for _, seeds in points if point_outcome(seeds) is not None]
    worst = worst_finite(ended, mode=mode)
    study.add_trials([_told(coordinates, seeds, distributions, worst) for coordinates, seeds in points])
    attempt = 0
    while True:
        sequence = np.random.SeedSequence(search_seed, spawn_key=(_TPE_STREAM, arm, ask, attempt))
        seed = int(sequence.generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=NUM_STARTUP)
        trial = study.ask(fixed_distributions=distributions)
        yield dict(trial.params)
        study.tell(trial, state=OptunaState.FAIL)
        attempt += 1


def is_told(seeds: Sequence[SeedHistory]) -> bool:
    """Tell whether TPE learns something from a point: it has ended, and not by an accident."""
    return point_outcome(seeds) in (TrialState.COMPLETED, TrialState.STOPPED, TrialState.DIVERGED)


def _told(
    coordinates: Mapping[str, Coordinate],
    seeds: Sequence[SeedHistory],
    distributions: dict[str, BaseDistribution],
    worst: float,
) -> FrozenTrial:
    state, value, reports = _telling(seeds, worst)
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params=dict(coordinates),
        distributions=distributions,
        intermediate_values=reports,
    )


def _telling(seeds: Sequence[SeedHistory], worst: float) -> tuple[OptunaState, float | None, dict[int, float]]:
    outcome = point_outcome(seeds)
    match outcome:
        case None:
            return OptunaState.RUNNING, None, {}
        case TrialState.COMPLETED:
            return OptunaState.COMPLETE, float(np.mean(final_values(seeds))), mean_reports(seeds)
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
