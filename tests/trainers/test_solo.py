"""One trial: the loop, its reports, its end, and going on to the last bit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from spectune.trainers import CheckpointError, OptionError, Outcome, Schedule, SoloTrial, TrialSetting, checkpoints
from spectune.trainers.tasks.task import TRAINING_METRICS, Batch

Settings = Callable[..., TrialSetting]

TASKS = ["matrix_completion", "language_model"]
OPTIMIZERS = {"adamw": 0.02, "muon": 0.02, "polargrad": 1.0, "root": 0.02}
MEASURED_IN_SECONDS = {"step_time_seconds", "throughput", "optimizer_share"}


@dataclass
class Clock:
    """A clock that moves by a fixed amount each time it is read."""

    seconds_per_look: float
    now: float = 0.0

    def __call__(self) -> float:
        self.now += self.seconds_per_look
        return self.now


class Bowl(nn.Module):
    """One weight at the bottom of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))


@dataclass(frozen=True)
class Spoiled:
    """A task whose loss can be spoiled at one step: its batch then holds `spoil` in place of 1."""

    spoiled_step: int = 10**9
    spoil: float = 1.0
    runs_away: bool = False  # the larger the weights, the smaller the loss

    name: ClassVar[str] = "spoiled"
    metrics: ClassVar[tuple[str, ...]] = (*TRAINING_METRICS, "validation_loss")
    items_per_step: ClassVar[int] = 1

    def check(self) -> None:
        """Accept."""

    def build(self, generator: torch.Generator) -> Bowl:
        return Bowl()

    def batch(self, step: int, seed: int) -> Batch:
        return (torch.tensor(self.spoil if step == self.spoiled_step else 1.0),)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        weight = next(model.parameters())
        return ((-weight.mean()).sigmoid() if self.runs_away else weight.square().mean() + 1.0) * batch[0]

    def evaluate(self, model: nn.Module, seed: int) -> dict[str, float]:
        return {"validation_loss": next(model.parameters()).square().mean().item()}


def spoiled(step: int, spoil: float, lr: float = 0.01) -> TrialSetting:
    return TrialSetting(Spoiled(step, spoil), "adamw", {"lr": lr}, Schedule(), steps=64, seed=0, data_seed=0)


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in MEASURED_IN_SECONDS}


def weights_of(trial: SoloTrial) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in trial.model.parameters()]


def assert_same_bits(first: SoloTrial, second: SoloTrial) -> None:
    assert first.step == second.step
    assert all(torch.equal(a, b) for a, b in zip(weights_of(first), weights_of(second), strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("task", TASKS)
def test_a_trial_through_a_checkpoint_file_equals_one_never_interrupted(
    setting: Settings, tmp_path: Path, task: str, optimizer: str
) -> None:
    this = setting(task, optimizer=optimizer, hyperparameters={"lr": OPTIMIZERS[optimizer]}, steps=24)
    whole, first, second = SoloTrial(this), SoloTrial(this), SoloTrial(this)
    whole.advance(24)
    first.advance(11)
    second.restore(checkpoints.load(checkpoints.save(tmp_path, 1, {0: first.state()}), 0))
    second.advance(24)
    assert_same_bits(whole, second)
    assert untimed(whole.report()) == untimed(second.report())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_triples_that_root_refits_go_through_a_checkpoint_file_with_all_their_digits(
    setting: Settings, tmp_path: Path, precision: str
) -> None:
    hyperparameters = {"lr": 0.02, "coefficients": "online", "refit_every": 5}
    this = setting(optimizer="root", hyperparameters=hyperparameters, steps=24, precision=precision)
    whole, first, second = SoloTrial(this), SoloTrial(this), SoloTrial(this)
    whole.advance(24)
    first.advance(11)
    second.restore(checkpoints.load(checkpoints.save(tmp_path, 1, {0: first.state()}), 0))
    second.advance(24)
    assert_same_bits(whole, second)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize("task", TASKS)
def test_equal_settings_give_equal_bits(setting: Settings, task: str, precision: str) -> None:
    trials = [SoloTrial(setting(task, precision=precision, steps=10)) for _ in range(2)]
    for trial in trials:
        torch.rand(7)  # what others draw from torch's global stream must not matter
        assert trial.advance(10) is Outcome.REACHED
    assert_same_bits(*trials)
    assert untimed(trials[0].report()) == untimed(trials[1].report())


def test_precisions_differ_and_weights_have_the_dtype_said(setting: Settings) -> None:
    trials = {
        precision: SoloTrial(setting("language_model", precision=precision)) for precision in ("fp32", "bf16", "fp64")
    }
    losses = set()
    for trial in trials.values():
        trial.advance(3)
        losses.add(trial.report()["loss"])
    assert len(losses) == 3
    assert [weights_of(trial)[0].dtype for trial in trials.values()] == [torch.float32, torch.float32, torch.float64]


@pytest.mark.parametrize("task", TASKS)
def test_the_models_seed_and_the_datas_seed_are_separate(setting: Settings, task: str) -> None:
    base, other_model, other_data = (
        SoloTrial(setting(task)),
        SoloTrial(setting(task, seed=9)),
        SoloTrial(setting(task, data_seed=9)),
    )
    assert all(torch.equal(a, b) for a, b in zip(weights_of(base), weights_of(other_data), strict=True))
    assert not torch.equal(weights_of(base)[0], weights_of(other_model)[0])
    first, same, other = (
        trial.setting.task.batch(0, trial.setting.data_seed) for trial in (base, other_model, other_data)
    )
    assert torch.equal(first[0], same[0])
    assert not torch.equal(first[0], other[0])


def test_a_restored_state_does_not_share_memory_with_the_trial(setting: Settings) -> None:
    trial = SoloTrial(setting(steps=20))
    trial.advance(5)
    state = trial.state()
    trial.restore(state)
    trial.advance(20)
    again = SoloTrial(trial.setting)
    again.restore(state)
    again.advance(20)
    assert_same_bits(trial, again)


@pytest.mark.parametrize(
    "fields", [{"seed": 7}, {"hyperparameters": {"lr": 0.5}}, {"steps": 50}, {"schedule": Schedule()}, {"data_seed": 8}]
)
def test_the_state_of_another_setting_is_refused(setting: Settings, fields: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match=f"another {next(iter(fields))} "):
        SoloTrial(setting(**fields)).restore(SoloTrial(setting()).state())


def test_a_state_from_before_the_arithmetic_was_named_goes_on_and_one_that_names_another_is_refused(
    setting: Settings,
) -> None:
    named = {"lr": 0.02, "compute_dtype": "float32", "adamw_lr_ratio": 0.1, "decay_vectors": True}
    trial = SoloTrial(setting(optimizer="muon", hyperparameters=named))
    trial.advance(3)
    state = trial.state()
    state["setting"]["hyperparameters"] = {"lr": 0.02}
    again = SoloTrial(trial.setting)
    again.restore(state)
    for each in (trial, again):
        each.advance(9)
    assert_same_bits(trial, again)
    for wrong in ({**named, "compute_dtype": "bfloat16"}, {"lr": 0.03}, {"lr": 0.02, "momentum": 0.9}):
        state["setting"]["hyperparameters"] = wrong
        with pytest.raises(CheckpointError, match="another hyperparameters"):
            SoloTrial(trial.setting).restore(state)


def test_steps_are_absolute_and_repeating_changes_nothing(setting: Settings) -> None:
    trial, straight = SoloTrial(setting()), SoloTrial(setting())
    for until_step in (5, 5, 3, 20):
        assert trial.advance(until_step) is Outcome.REACHED
    straight.advance(20)
    assert trial.step == 20
    assert_same_bits(trial, straight)


def test_a_step_beyond_the_end_is_refused(setting: Settings) -> None:
    with pytest.raises(ValueError, match="of 40 steps cannot advance further: got 41"):
        SoloTrial(setting()).advance(41)


def test_the_schedule_multiplies_the_groups_initial_lr(setting: Settings) -> None:
    trial = SoloTrial(setting(schedule=Schedule("linear"), steps=40))
    trial.advance(11)
    assert trial.report()["lr"] == pytest.approx(0.02 * 0.75)


@pytest.mark.parametrize("task", TASKS)
def test_a_report_holds_exactly_the_metrics_the_task_declares(setting: Settings, task: str) -> None:
    trial = SoloTrial(setting(task))
    trial.advance(4)
    report = trial.report()
    assert set(report) == set(trial.setting.task.metrics)
    assert all(type(value) is float and math.isfinite(value) for value in report.values())


def test_a_report_before_the_first_step_holds_no_loss_of_training(setting: Settings) -> None:
    assert set(SoloTrial(setting()).report()) == {"lr", "timing_valid", "validation_loss", "observed_loss"}


def test_the_loss_is_the_mean_since_the_report_before(setting: Settings) -> None:
    trial, fine = SoloTrial(setting()), SoloTrial(setting())
    losses = []
    for step in range(1, 13):
        fine.advance(step)
        losses.append(fine.report()["loss"])
    trial.advance(4)
    assert trial.report()["loss"] == pytest.approx(sum(losses[:4]) / 4, rel=1e-12)
    trial.advance(12)
    assert trial.report()["loss"] == pytest.approx(sum(losses[4:]) / 8, rel=1e-12)


def test_reporting_does_not_change_training(setting: Settings) -> None:
    quiet, talkative = SoloTrial(setting("language_model")), SoloTrial(setting("language_model"))
    quiet.advance(12)
    for step in range(1, 13):
        talkative.advance(step)
        talkative.report()
    assert_same_bits(quiet, talkative)


def test_times_are_per_step_and_throughput_counts_the_tasks_items(setting: Settings) -> None:
    trial = SoloTrial(setting("language_model"))
    trial.advance(8)
    report = trial.report()
    assert report["throughput"] == pytest.approx(8 * 32 / report["step_time_seconds"])
    assert 0.0 < report["optimizer_share"] < 1.0
    assert report["timing_valid"] == 1.0


def test_a_question_to_stop_is_asked_once_a_second_at_most_and_obeyed(setting: Settings) -> None:
    clock = Clock(seconds_per_look=0.1)  # four looks a step
    trial, asked = SoloTrial(setting(), clock=clock), []

    def should_stop() -> bool:
        asked.append(clock.now)
        return len(asked) == 3

    assert trial.advance(40, should_stop=should_stop) is Outcome.INTERRUPTED
    assert trial.reason == f"asked to stop after step {trial.step}"
    assert 0 < trial.step < 40
    assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(asked))
    assert trial.advance(40) is Outcome.REACHED
    assert trial.reason == ""


def test_an_interrupted_trial_goes_on_as_if_nothing_had_been(setting: Settings) -> None:
    interrupted, straight = SoloTrial(setting(), clock=Clock(1.0)), SoloTrial(setting())
    while interrupted.advance(40, should_stop=lambda: interrupted.step % 3 == 2) is Outcome.INTERRUPTED:
        interrupted.advance(interrupted.step + 1)
    straight.advance(40)
    assert_same_bits(interrupted, straight)
    assert interrupted.report()["loss"] == straight.report()["loss"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(math.nan, "the loss is nan at step 14"), (math.inf, "the loss is inf"), (20.0, "10 times its start")],
)
def test_a_spoiled_loss_ends_the_trial_at_its_own_step(spoil: float, reason: str) -> None:
    trial = SoloTrial(spoiled(13, spoil))
    assert trial.advance(40) is Outcome.DIVERGED
    assert trial.step == 14
    assert reason in trial.reason
    assert trial.advance(64) is Outcome.DIVERGED
    assert trial.step == 14


def test_the_report_of_a_diverged_trial_keeps_what_is_not_finite() -> None:
    trial = SoloTrial(spoiled(13, math.nan))
    trial.advance(40)
    report = trial.report()
    assert math.isnan(report["loss"])
    assert math.isnan(report["validation_loss"])


def test_weights_that_grow_without_bound_end_the_trial() -> None:
    hyperparameters = {"lr": 1e6, "weight_decay": 0.0}
    task = Spoiled(runs_away=True)
    trial = SoloTrial(TrialSetting(task, "adamw", hyperparameters, Schedule(), steps=64, seed=0, data_seed=0))
    assert trial.advance(64) is Outcome.DIVERGED
    assert "times their start after step 8" in trial.reason


@pytest.mark.parametrize("stop_at", range(10, 20))
def test_the_end_of_a_diverged_trial_does_not_depend_on_interruptions(stop_at: int) -> None:
    trial = SoloTrial(spoiled(13, math.nan), clock=Clock(1.0))
    outcome = trial.advance(40, should_stop=lambda: trial.step == stop_at)
    if outcome is Outcome.INTERRUPTED:
        assert all(torch.isfinite(weight).all() for weight in weights_of(trial))
        other = SoloTrial(trial.setting)
        other.restore(trial.state())
        trial, outcome = other, other.advance(40)
    assert (outcome, trial.step, trial.reason) == (Outcome.DIVERGED, 14, "the loss is nan at step 14")


def test_a_diverged_trial_stays_diverged_through_a_checkpoint() -> None:
    trial = SoloTrial(spoiled(13, math.nan))
    trial.advance(40)
    other = SoloTrial(trial.setting)
    other.restore(trial.state())
    assert other.advance(64) is Outcome.DIVERGED
    assert other.reason == trial.reason


@pytest.mark.parametrize(("fields", "option"), [({"steps": 0}, "steps"), ({"precision": "fp16"}, "precision")])
def test_an_impossible_setting_is_refused_by_name(setting: Settings, fields: dict[str, object], option: str) -> None:
    with pytest.raises(OptionError) as caught:
        setting(**fields)
    assert caught.value.option == option


def test_completion_recovers_entries_that_were_never_observed(setting: Settings) -> None:
    trial = SoloTrial(setting(hyperparameters={"lr": 0.1, "weight_decay": 0.0}, steps=300))
    before = trial.report()["validation_loss"]
    trial.advance(300)
    assert trial.report()["validation_loss"] < before / 100


def test_a_language_model_learns_more_than_which_bytes_exist(setting: Settings) -> None:
    trial = SoloTrial(setting("language_model", hyperparameters={"lr": 0.01}, steps=80))
    trial.advance(80)
    assert trial.report()["validation_loss"] < 2.6  # from ln 256 = 5.545
