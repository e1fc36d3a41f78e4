"""A population of trials: the order of their names decides nothing, and memory that is too small loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spectune.trainers import Outcome, Schedule, TrialSetting, checkpoints, task_from_options
from spectune.trainers.engines import structure
from spectune.trainers.engines.lane_step import LaneStep
from spectune.trainers.engines.population import Population
from spectune.trainers.tasks import Task
from tests.trainers.tasks.conftest import SMALL

Settings = Callable[..., TrialSetting]

LEARNING_RATES = {
    "muon": 0.02,
    "polargrad": 0.3,
    "root": 0.02,
    "spectral_descent": 0.01,
    "adamw": 0.01,
    "sgd": 1e-3,
}


def hyperparameters(optimizer: str, number: int) -> dict[str, Any]:
    """Hyperparameters that differ in everything a member's may."""
    differing: dict[str, Any] = {"lr": LEARNING_RATES[optimizer] * (1 + number)}
    if optimizer != "sgd":
        differing["weight_decay"] = 0.05 * number
    if optimizer == "adamw":
        differing["betas"] = [0.8 + 0.05 * number, 0.95 + 0.01 * number]
    if optimizer in ("muon", "root"):
        differing["ns_steps"] = 3 + number
    if optimizer in ("muon", "root", "polargrad"):
        differing["momentum"] = 0.9 + 0.03 * number
    if optimizer == "muon":
        differing["compute_dtype"] = "auto"  # the engines are compared to more digits than bfloat16 has
    if optimizer == "root":
        differing["percentile"] = [0.8, 0.95, 1.0][number]
    return differing


def members_of(task: Task, optimizer: str, precision: Any = "fp64") -> dict[int, TrialSetting]:
    """Three trials of one structure that differ in all else."""
    return {
        number: TrialSetting(
            task,
            optimizer,
            hyperparameters(optimizer, number),
            Schedule("cosine", warmup_fraction=0.1 * number),
            steps=60,
            seed=number,
            data_seed=number // 2,
            precision=precision,
        )
        for number in range(3)
    }


def admitted(settings: dict[int, TrialSetting]) -> Population:
    cohort = Population()
    for trial, each in settings.items():
        cohort.admit(trial, each)
    return cohort


def targets(cohort: Population, step: int) -> dict[int, int]:
    return dict.fromkeys(cohort.trials, step)


def weights(state: dict[str, Any]) -> Tensor:
    return torch.cat([entry.double().flatten() for entry in state["model"].values()])


def deviation(state: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of two states' weights, in units of their root mean square."""
    mine, theirs = weights(state), weights(other)
    return float((mine - theirs).abs().max() / theirs.square().mean().sqrt())


def test_the_order_in_which_trials_are_named_decides_nothing() -> None:
    """All lanes at once, named in another order than they came in, were trained with each other's hyperparameters."""
    task = task_from_options("matrix_completion", SMALL["matrix_completion"])
    settings = members_of(task, "muon")
    named = [admitted(settings) for _ in range(2)]
    reports = []
    for cohort, order in zip(named, ([0, 1, 2], [2, 0, 1]), strict=True):
        cohort.advance(dict.fromkeys(order, 5))
        found = cohort.report(order)
        names = ("lr", "validation_loss", "spectral/nuclear_norm")
        reports.append({trial: [found[trial][name] for name in names] for trial in settings})  # type: ignore[index]
    assert reports[0] == reports[1]
    for trial in settings:
        assert torch.equal(weights(named[0].state(trial)), weights(named[1].state(trial)))


@pytest.mark.parametrize("optimizer", LEARNING_RATES)
@pytest.mark.parametrize("task", ["matrix_logistic", "language_model"])
def test_a_population_taken_up_from_its_checkpoint_goes_on_to_the_last_bit(
    task_named: Callable[[str], Task], tmp_path: Path, task: str, optimizer: str
) -> None:
    settings = members_of(task_named(task), optimizer, "fp32")
    whole, first, second = admitted(settings), admitted(settings), Population()
    first.advance({0: 3, 1: 5, 2: 5})
    path = checkpoints.save(tmp_path, 1, {trial: first.state(trial) for trial in settings})
    for trial, each in settings.items():
        second.admit(trial, each, checkpoints.load(path, trial))
    for cohort in (whole, second):
        cohort.advance({0: 3, 1: 5, 2: 5})
        cohort.advance(targets(cohort, 12))
    for trial in settings:
        assert torch.equal(weights(second.state(trial)), weights(whole.state(trial)))
        assert second.state(trial)["watch"] == whole.state(trial)["watch"]


def test_a_cohort_that_does_not_fit_into_memory_goes_on_in_halves_and_loses_nothing(
    setting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {trial: setting(optimizer="muon", seed=trial) for trial in range(5)}
    whole, tight = admitted(settings), admitted(settings)
    whole.advance(targets(whole, 12))
    take, sizes = LaneStep.take, []

    def of_at_most_two(self: LaneStep, work: Any, settings: Any, steps: Any, rates: Any) -> Tensor:
        if len(steps) > 2 and steps[0] >= 4:
            raise torch.OutOfMemoryError("out of memory, injected")
        sizes.append(len(steps))
        return take(self, work, settings, steps, rates)

    monkeypatch.setattr(structure, "_most_lanes", {})
    monkeypatch.setattr(LaneStep, "take", of_at_most_two)
    assert set(tight.advance(targets(tight, 12)).values()) == {Outcome.REACHED}
    assert structure.known_bound(settings[0]) == 2
    assert sum(sizes) == 5 * 12
    for trial in settings:
        assert deviation(tight.state(trial), whole.state(trial)) < 1e-3  # fp32 over 12 steps


def test_a_processor_whose_memory_is_refused_trains_a_cohort_in_halves(
    setting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allocator itself refuses, with the plain RuntimeError that torch raises there."""
    settings = {trial: setting(optimizer="adamw", seed=trial) for trial in range(4)}
    take = LaneStep.take

    def hungry(self: LaneStep, work: Any, settings: Any, steps: Any, rates: Any) -> Tensor:
        torch.empty(1 if len(steps) == 1 else 2**50, dtype=torch.uint8)
        return take(self, work, settings, steps, rates)

    monkeypatch.setattr(structure, "_most_lanes", {})
    monkeypatch.setattr(LaneStep, "take", hungry)
    cohort = admitted(settings)
    assert set(cohort.advance(targets(cohort, 3)).values()) == {Outcome.REACHED}
    assert structure.known_bound(settings[0]) == 1


def test_another_error_is_not_taken_for_a_lack_of_memory(setting: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(LaneStep, "take", broken)
    cohort = admitted({trial: setting(seed=trial) for trial in range(2)})
    with pytest.raises(RuntimeError, match="shapes do not match"):
        cohort.advance(targets(cohort, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_that_is_too_small_trains_a_cohort_in_halves(
    task_named: Callable[[str], Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allocator itself refuses: it may take little more than three members need."""
    monkeypatch.setattr(structure, "_most_lanes", {})
    task = task_from_options("matrix_completion", {"rows": 2048, "columns": 2048, "rank": 8})
    settings = {
        trial: TrialSetting(task, "muon", {"lr": 0.02}, Schedule(), 4, seed=trial, data_seed=0, device="cuda")
        for trial in range(8)
    }
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    small = admitted({trial: settings[trial] for trial in range(3)})
    small.advance(targets(small, 4))
    share = 1.1 * torch.cuda.max_memory_reserved() / torch.cuda.mem_get_info()[1]
    expected = {trial: small.state(trial) for trial in range(3)}
    del small
    torch.cuda.empty_cache()
    cohort = admitted(settings)
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        assert set(cohort.advance(targets(cohort, 4)).values()) == {Outcome.REACHED}
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert structure.known_bound(settings[0]) in (1, 2)
    for trial in range(3):
        assert deviation(cohort.state(trial), expected[trial]) < 1e-3
