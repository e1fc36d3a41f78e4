"""A population may admit, evict, train, checkpoint and restore in any order: each trial does what it does alone."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor

from spectune.trainers import Schedule, SoloTrial, TrialSetting, checkpoints, task_from_options
from spectune.trainers.engines.fused_step_check import TOLERANCES
from spectune.trainers.engines.population import Population

STEPS = 12
TRIALS = range(6)
TASKS = {
    "one batch": task_from_options("matrix_completion", {"rows": 8, "columns": 6, "rank": 2, "observed_fraction": 0.6}),
    "fresh batches": task_from_options(
        "matrix_logistic",
        {"rows": 6, "columns": 4, "samples": 30, "outputs": 5, "batch_size": 8, "gradient_noise": "student_t"},
    ),
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "muon": {"momentum": (0.9, 0.95), "ns_steps": (3, 5)},
    "root": {"momentum": (0.9, 0.95), "ns_steps": (3, 5), "percentile": (0.9, 1.0)},
    "polargrad": {"momentum": (0.9, 0.95)},
    "spectral_descent": {},
    "adamw": {"betas": ((0.8, 0.95), (0.9, 0.99))},
    "sgd": {},
}


def setting_of(structure: tuple[str, str], trial: int) -> TrialSetting:
    task, optimizer = structure
    differing = {name: values[trial % len(values)] for name, values in OPTIMIZERS[optimizer].items()}
    hyperparameters = {"lr": 0.01 * (1 + trial)} | differing
    if optimizer != "sgd":
        hyperparameters["weight_decay"] = 0.1 * (trial % 2)
    schedule = Schedule("cosine", warmup_fraction=0.1 * (trial % 3))
    return TrialSetting(TASKS[task], optimizer, hyperparameters, schedule, STEPS, trial, trial % 2, precision="fp64")


def weights(state: dict[str, Any]) -> Tensor:
    return torch.cat([entry.flatten() for entry in state["model"].values()])


@cache
def alone(structure: tuple[str, str], trial: int, start: float = 0.0) -> list[Tensor]:
    """The weights of a trial after each of its steps alone, from a start that is moved by `start` of itself."""
    solo = SoloTrial(setting_of(structure, trial))
    for parameter in solo.model.parameters():
        draw = torch.Generator().manual_seed(trial)
        noise = torch.randn(parameter.shape, dtype=parameter.dtype, generator=draw)
        parameter.data *= 1 + start * noise
    found = [weights(solo.state())]
    for step in range(STEPS):
        solo.advance(step + 1)
        found.append(weights(solo.state()))
    return found


def bound_of(structure: tuple[str, str], trial: int, step: int) -> float:
    """A run's deviation may be 30 times that of the run alone from a start moved by 1e-15."""
    there, moved = alone(structure, trial)[step], alone(structure, trial, 1e-15)[step]
    scale = there.square().mean().sqrt()
    response = float((moved - there).abs().max() / scale)
    return 30 * max(response, TOLERANCES["fp64"] / 100)


class Machine(RuleBasedStateMachine):
    """Trials come, train, rest on disk and leave; every one stands where it stands alone."""

    @initialize(
        task=st.sampled_from(sorted(TASKS)),
        optimizer=st.sampled_from(sorted(OPTIMIZERS)),
        trials=st.sets(st.sampled_from(TRIALS), min_size=2),
    )
    def begin(self, task: str, optimizer: str, trials: set[int]) -> None:
        self.structure = task, optimizer
        self.cohort = Population()
        self.steps: dict[int, int] = {}
        self.saved: dict[int, int] = {}
        self.folder = tempfile.TemporaryDirectory()
        self.number = 0
        for trial in sorted(trials, key=lambda trial: -trial):
            self.admit(trial)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @precondition(lambda self: len(self.steps) < len(TRIALS))
    @rule(data=st.data())
    def admit_one(self, data: st.DataObject) -> None:
        self.admit(data.draw(st.sampled_from(sorted(set(TRIALS) - set(self.steps)))))

    def admit(self, trial: int, state: dict[str, Any] | None = None) -> None:
        self.cohort.admit(trial, setting_of(self.structure, trial), state)
        self.steps[trial] = 0 if state is None else state["step"]

    @precondition(lambda self: self.steps)
    @rule(data=st.data())
    def evict(self, data: st.DataObject) -> None:
        leaving = data.draw(st.sets(st.sampled_from(sorted(self.steps)), min_size=1))
        self.cohort.evict(sorted(leaving))
        self.steps = {trial: step for trial, step in self.steps.items() if trial not in leaving}

    @precondition(lambda self: self.steps)
    @rule(data=st.data(), by=st.integers(1, 5))
    def advance(self, data: st.DataObject, by: int) -> None:
        some = data.draw(st.sets(st.sampled_from(sorted(self.steps)), min_size=1))
        targets = {trial: min(self.steps[trial] + by, STEPS) for trial in sorted(some)}
        self.cohort.advance(targets)
        self.steps |= targets

    @precondition(lambda self: self.steps)
    @rule()
    def checkpoint(self) -> None:
        self.number += 1
        states = {trial: self.cohort.state(trial) for trial in self.steps}
        checkpoints.save(Path(self.folder.name) / "attempt" / "slot", self.number, states)
        for trial, step in self.steps.items():
            self.saved[trial] = max(self.saved.get(trial, 0), step)  # the latest has the most steps

    @precondition(lambda self: self.saved)
    @rule()
    def restore(self) -> None:
        """The worker is lost: another takes up every trial from its latest checkpoint."""
        self.cohort, self.steps = Population(), {}
        shelf = checkpoints.Shelf(Path(self.folder.name))
        for trial, step in self.saved.items():
            state = shelf.latest(trial).state
            assert state is not None
            assert state["step"] == step
            self.admit(trial, state)

    @invariant()
    def every_trial_stands_where_it_stands_alone(self) -> None:
        for trial, step in getattr(self, "steps", {}).items():
            assert self.cohort.step(trial) == step
            expected, found = alone(self.structure, trial)[step], weights(self.cohort.state(trial))
            deviation = float((found - expected).abs().max() / expected.square().mean().sqrt())
            assert deviation <= bound_of(self.structure, trial, step)


@pytest.mark.slow
class TestMachine(Machine.TestCase):  # type: ignore[misc]
    settings = settings(
        max_examples=300 if os.environ.get("SPECTUNE_FAULTS") else 60,
        stateful_step_count=16,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )


def test_the_machine_rejects_a_lane_that_takes_anothers_place() -> None:
    machine = Machine()
    machine.begin("one batch", "muon", {0, 1})
    machine.cohort.advance({0: 3, 1: 3})
    machine.steps = {0: 3, 1: 3}
    machine.every_trial_stands_where_it_stands_alone()
    stack = machine.cohort._joined()
    for weight in stack.weights:
        weight.copy_(weight.flip(1))
    with pytest.raises(AssertionError):
        machine.every_trial_stands_where_it_stands_alone()
    machine.teardown()
