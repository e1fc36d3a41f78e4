"""What TPE is told about points that did not complete."""

from __future__ import annotations

import math
from itertools import islice
from typing import ClassVar

import optuna
import pytest

from spectune.search_spaces import Space, Uniform
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.outcomes import SeedHistory
from spectune.service.campaign.search.adaptive import Ask, is_told, tpe_coordinates
from spectune.service.campaign.search.sampling import random_units

SPACE = Space({"x": Uniform(0, 1)})


class Listener(optuna.samplers.TPESampler):
    """Keeps the trials that a sampler is shown."""

    shown: ClassVar[list[optuna.trial.FrozenTrial]] = []

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        Listener.shown = study.get_trials()[:-1]
        super().before_trial(study, trial)


@pytest.fixture
def _listening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna.samplers, "TPESampler", Listener)


def _ask(histories: list[list[SeedHistory]], num_draws: int = 1, mode: str = "minimize") -> list[float]:
    points = [({"x": (index + 0.5) / len(histories)}, seeds) for index, seeds in enumerate(histories)]
    ask = Ask(SPACE, points, modes=(mode,), num_points=64, search_seed=0, arm=0, number=len(points))
    drawn = tpe_coordinates(ask)
    return [float(each["x"]) for each in islice(drawn, num_draws)]


@pytest.mark.usefixtures("_listening")
def test_each_outcome_has_its_state_in_optuna_and_no_nan_is_passed() -> None:
    histories = [
        [SeedHistory({1: 5.0, 2: 1.0}, TrialState.COMPLETED, 1.0), SeedHistory({1: 7.0}, TrialState.COMPLETED, 3.0)],
        [SeedHistory({1: 9.0, 2: math.nan}, TrialState.STOPPED)],
        [SeedHistory({1: math.inf}, TrialState.DIVERGED)],
        [SeedHistory({}, TrialState.COMPLETED, math.nan)],
        [SeedHistory({1: 2.0}, TrialState.FAILED)],
        [SeedHistory({}, TrialState.LOST)],
        [SeedHistory({}, TrialState.CANCELLED)],
        [SeedHistory({1: 2.0}), SeedHistory({}, TrialState.COMPLETED, 1.0)],
    ]
    _ask(histories)
    told = [(trial.state.name, trial.values, trial.intermediate_values) for trial in Listener.shown]
    assert told == [
        ("COMPLETE", [2.0], {1: 6.0}),
        ("PRUNED", None, {1: 9.0}),
        ("PRUNED", None, {0: 9.0}),
        ("PRUNED", None, {0: 9.0}),
        ("FAIL", None, {}),
        ("FAIL", None, {}),
        ("FAIL", None, {}),
        ("RUNNING", None, {}),
    ]


@pytest.mark.parametrize("mode", ["minimize", "maximize"])
def test_points_that_diverged_repel_tpe_even_where_almost_nothing_completes(mode: str) -> None:
    """Told as COMPLETE with the worst value they would rank before every stopped point, and attract it."""
    diverged = [[SeedHistory({1: math.nan}, TrialState.DIVERGED)] for _ in range(20)]
    stopped = [[SeedHistory({5: 1.0}, TrialState.STOPPED)] for _ in range(20)]
    drawn = _ask(stopped + diverged, num_draws=40, mode=mode)
    assert sum(x < 0.5 for x in drawn) > 30


def test_only_accidents_teach_nothing() -> None:
    ends = {state: is_told([SeedHistory({}, state, 1.0)]) for state in TrialState if state.is_terminal}
    assert {state for state, told in ends.items() if told} == {
        TrialState.COMPLETED,
        TrialState.STOPPED,
        TrialState.DIVERGED,
    }
    assert not is_told([SeedHistory()])


def test_random_units_are_uniform_and_never_the_same() -> None:
    drawn = [next(random_units(0, arm=arm, ask=ask, num_axes=2)) for arm in range(2) for ask in range(500)]
    assert len({tuple(unit) for unit in drawn}) == 1000
    assert sum(unit[0] < 0.25 for unit in drawn) / 1000 == pytest.approx(0.25, abs=0.05)
    first, second = islice(random_units(0, arm=0, ask=0, num_axes=2), 2)
    assert first == drawn[0] != second
