"""What reports say of the momenta's spectra."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from spectune.trainers import TrialSetting
from spectune.trainers.engines.population import Population
from spectune.trainers.engines.solo import SoloTrial
from spectune.trainers.engines.spectra import SPECTRAL_METRICS

Settings = Callable[..., TrialSetting]
SPECTRAL: dict[str, dict[str, Any]] = {
    "muon": {"lr": 0.02},
    "polargrad": {"lr": 1.0},
    "root": {"lr": 0.02, "percentile": 0.8},
}


def spectral(report: dict[str, float] | str) -> dict[str, float]:
    assert isinstance(report, dict)
    return {name: value for name, value in report.items() if name.startswith("spectral/")}


def alone(setting: TrialSetting, step: int = 6) -> dict[str, float]:
    trial = SoloTrial(setting)
    trial.advance(step)
    return spectral(trial.report())


def test_the_numbers_are_those_of_an_exact_polar_factor_of_the_momentum(setting: Settings) -> None:
    trial = SoloTrial(setting(optimizer="polargrad", hyperparameters={"lr": 1.0}, precision="fp64"))
    trial.advance(6)
    found, lengths, norms = spectral(trial.report()), [], []
    for state in trial.state()["optimizer"]["state"].values():
        momentum = state["momentum_buffer"]
        values = torch.linalg.svdvals(momentum)
        norms.append(values.sum().item())
        lengths.append(values.mean().item() / math.sqrt(max(momentum.shape)))  # of U Vᵀ times its mean singular value
    assert found["spectral/orthogonality_error"] < 1e-12
    assert found["spectral/nuclear_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-10)
    assert found["spectral/update_rms"] == pytest.approx(sum(lengths) / len(lengths), rel=1e-10)


def test_an_iteration_that_has_not_converged_shows(setting: Settings) -> None:
    few, many = (
        alone(setting(optimizer="muon", hyperparameters={"lr": 0.02, "solver": "polar_express", "ns_steps": steps}))
        for steps in (1, 8)
    )
    assert few["spectral/orthogonality_error"] > 10 * many["spectral/orthogonality_error"]


def test_root_tells_what_share_it_clips(setting: Settings) -> None:
    found = alone(setting(optimizer="root", hyperparameters={"lr": 0.02, "percentile": 0.8}))
    assert found["spectral/clipped_fraction"] == pytest.approx(0.2, abs=0.02)
    assert set(found) == set(SPECTRAL_METRICS)


@pytest.mark.parametrize("optimizer", SPECTRAL)
def test_lanes_report_what_each_would_alone(setting: Settings, optimizer: str) -> None:
    first = setting(optimizer=optimizer, hyperparameters=SPECTRAL[optimizer], precision="fp64")
    other = {**SPECTRAL[optimizer], "momentum": 0.5, **({"percentile": 0.95} if optimizer == "root" else {})}
    settings = [first, replace(first, hyperparameters=other, seed=7), replace(first, seed=8)]
    population = Population()
    for number, each in enumerate(settings):
        population.admit(number, each)
    population.advance({0: 6, 1: 6, 2: 4})
    reports = population.report([1, 0])  # not all, and in another order
    for number in (0, 1):
        expected = alone(settings[number])
        found = spectral(reports[number])
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert spectral(reports[0]) != pytest.approx(spectral(reports[1]), rel=1e-3)


def test_a_diverged_lane_reports_none_and_leaves_the_others_as_they_are(setting: Settings) -> None:
    sound = setting(optimizer="muon", hyperparameters={"lr": 0.02}, steps=400)
    wild = replace(sound, hyperparameters={"lr": 1e12}, seed=5)
    population = Population()
    population.admit(0, sound)
    population.admit(1, wild)
    population.advance({0: 24, 1: 24})
    reports = population.report([0, 1])
    assert population.reason(1)
    assert spectral(reports[1]) == {}
    assert all(math.isfinite(value) for value in spectral(reports[0]).values())


@pytest.mark.parametrize(
    ("optimizer", "hyperparameters"),
    [
        ("adamw", {"lr": 0.01}),
        ("sgd", {"lr": 0.01}),
        ("spectral_descent", {"lr": 0.01}),
        ("polargrad", {"lr": 1.0, "polar_first": True}),
    ],
)
def test_an_optimizer_without_a_momentum_to_follow_has_no_such_numbers(
    setting: Settings, optimizer: str, hyperparameters: dict[str, Any]
) -> None:
    trial = setting(optimizer=optimizer, hyperparameters=hyperparameters)
    assert alone(trial) == {}
    population = Population()
    population.admit(0, trial)
    population.advance({0: 6})
    assert spectral(population.report([0])[0]) == {}
