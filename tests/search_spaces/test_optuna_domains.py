"""The axes as Optuna sees them."""

from __future__ import annotations

import warnings

import optuna
import pytest

from spectune.search_spaces import (
    DEFAULT_SPACES,
    Choice,
    Integer,
    LogInteger,
    OneMinusLogUniform,
    Space,
    When,
    ZeroOrLogUniform,
)
from spectune.search_spaces.optuna_domains import distributions

SPACE = Space(
    {
        "betas": Choice(([0.9, 0.95], [0.8, 0.98])),
        "momentum": OneMinusLogUniform(0.9, 0.999),
        "steps": When(Integer(1, 8), (("betas", ([0.9, 0.95],)),)),
        "weight_decay": ZeroOrLogUniform(1e-2, 0.3),
        "width": LogInteger(1, 64),
    }
)


@pytest.mark.parametrize("space", [SPACE, *DEFAULT_SPACES.values()])
def test_whatever_optuna_draws_is_a_configuration_of_the_space(space: Space) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        trial = study.ask(fixed_distributions=distributions(space))
        assert list(trial.params) == list(space.axes)
        assert space.problems_with(space.config(trial.params)) == []


def test_whatever_the_cube_holds_is_inside_optunas_distributions() -> None:
    made = distributions(SPACE)
    for corner in (0.0, 0.3, 1.0):
        coordinates = SPACE.coordinates_at([corner] * SPACE.num_axes)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE, value=0.0, params=coordinates, distributions=made
            )
