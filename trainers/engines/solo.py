"""The solo engine: one trial, a plain module and the normal PyTorch loop.

Steps are absolute: `advance(until_step=400)` repeated changes nothing. Equal settings give equal numbers, bit for bit
on a CPU with an equal number of threads, through any number of interruptions and restores.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Any

import torch

from spectune.optimizers import build_optimizer
from spectune.trainers.checkpoints import State, copied
from spectune.trainers.engines.divergence import Watch, rms
from spectune.trainers.engines.spectra import spectra_of_model
from spectune.trainers.engines.step_timing import StepTimer, StepTimes
from spectune.trainers.gradient_noise import noise_of
from spectune.trainers.seeds import generator_for
from spectune.trainers.setting import PRECISIONS, TrialSetting
from spectune.trainers.tasks.task import TRAINING_METRICS, Batch, batch_is_fixed, items_per_step, place
from spectune.trainers.user_code import checked_batch, checked_loss, checked_metrics

__all__ = ["Outcome", "SoloTrial", "TrialSetting", "never"]

INSPECT_EVERY = 8
ASK_EVERY_SECONDS = 1.0


class Outcome(StrEnum):
    """How a call of `advance` ended."""

    REACHED = "reached"
    INTERRUPTED = "interrupted"
    DIVERGED = "diverged"


def never() -> bool:
    """Answer that nobody asks to stop."""
    return False


class SoloTrial:
    """One trial in training.

    Attributes:
        setting: What is trained.
        model: The module in training.
        step: Steps taken; after DIVERGED, those up to and including the one that ended the trial.
        reason: Why the last `advance` did not reach its step, else empty.
    """

    def __init__(self, setting: TrialSetting, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """Build model and optimizer, and fetch the first batch, so that no step pays for it.

        Raises:
            TaskOptionError: The task cannot be trained as asked.
            ValueError: The optimizer refuses its hyperparameters.
        """
        setting.task.check()
        self.setting = setting
        self.step = 0
        self.reason = ""
        self.model = setting.task.build(generator_for("model", setting.seed))
        self.model.to(setting.device, PRECISIONS[setting.precision])
        self._optimizer = build_optimizer(self.model, setting.optimizer, **setting.hyperparameters)
        self._noise = noise_of(setting.task)
        self._device = torch.device(setting.device)
        self._timer = StepTimer(self._device, clock)
        self._watch = Watch(rms(self.model.parameters()))
        self._clock = clock
        self._asked_at = clock()
        self._is_batch_fixed = batch_is_fixed(setting.task)
        self._placed: Batch = ()
        self._batch(0)

    def advance(self, until_step: int, *, should_stop: Callable[[], bool] = never) -> Outcome:
        """Train until `until_step` steps are taken in all.

        Args:
            until_step: At most the setting's steps; nothing happens where they are taken already.
            should_stop: Asked between steps, at most once a second; True ends the call early.

        Raises:
            ValueError: `until_step` lies beyond the trial's end.
        """
        if until_step > self.setting.steps:
            raise ValueError(f"a trial of {self.setting.steps} steps cannot advance further: got {until_step}")
        started, began_at = self._clock(), self.step
        self.reason = self._watch.reason
        while self.step < until_step and not self.reason:
            if self._is_asked(should_stop) and self._stops_here():
                break
            self._train_step()
            if self.step % INSPECT_EVERY == 0 or self.step == until_step:
                self._inspect()
        self._timer.add_stretch(self._clock() - started, self.step - began_at)
        return self._outcome()

    def report(self) -> dict[str, float]:
        """Evaluate now, and sum up the steps since the report before.

        Returns:
            The task's metrics and those of `spectra`. `loss` is the mean over the steps since the report
            before; it and the times are left out where no step was taken. A diverged trial is not evaluated: its own
            metrics are NaN.
        """
        metrics = {"lr": float(self._optimizer.param_groups[0]["lr"]), "timing_valid": 1.0}
        metrics |= self._timer.times.metrics(items_per_step(self.setting.task))
        if self._watch.loss_count:
            metrics["loss"] = self._watch.loss_sum / self._watch.loss_count
        if not self._watch.reason:
            metrics |= spectra_of_model(self.model, self._optimizer)
        metrics |= self._evaluate()
        self._watch.forget_losses()
        self._timer.times = StepTimes()
        return metrics

    def state(self) -> State:
        """Copy everything the trial needs to go on, as tensors on the CPU and plain values."""
        return {
            "setting": self.setting.identity(),
            "step": self.step,
            "model": copied(self.model.state_dict()),
            "optimizer": copied(self._optimizer.state_dict()),
            "watch": self._watch.state(),
            "times": dataclasses.asdict(self._timer.times),
        }

    def restore(self, state: State) -> None:
        """Go on from what `state` gave, to the last bit on a CPU.

        Raises:
            CheckpointError: The state belongs to a trial with another setting.
        """
        self.setting.refuse_other(state["setting"])
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(copied(state["optimizer"]))
        self._watch.restore(state["watch"])
        self._timer.times = StepTimes(**state["times"])
        self.step = state["step"]
        self.reason = self._watch.reason

    def _train_step(self) -> None:
        started = self._timer.start_step(self.step)
        factor = self.setting.schedule.factor(self.step, self.setting.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        batch = self._batch(self.step)
        with self._autocast():
            loss = self.setting.task.loss(self.model, batch)
        loss = checked_loss(loss, source=f"{type(self.setting.task).__name__}.loss", when=f" at step {self.step}")
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        self._disturb_gradients()
        optimizer_started = self._timer.start_optimizer()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._timer.end_step(started, optimizer_started)
        self._watch.add(loss)
        self.step += 1

    def _disturb_gradients(self) -> None:
        noise = self._noise
        for name, parameter in self.model.named_parameters() if noise else ():
            if noise is not None and parameter.grad is not None:
                parameter.grad = noise.disturb(name, parameter.grad, seed=self.setting.data_seed, step=self.step)

    def _batch(self, step: int) -> Batch:
        """Return a step's batch on the device; one that is fixed is made and moved only once."""
        if not self._placed or not self._is_batch_fixed:
            batch = self.setting.task.batch(step, self.setting.data_seed)
            source = f"{type(self.setting.task).__name__}.batch"
            self._placed = place(checked_batch(batch, source=source, when=f" at step {step}"), self.model)
        return self._placed

    def _inspect(self) -> None:
        self._end_at(self._watch.inspect_losses(self.step))
        if not self.reason:
            self._end_at(self._watch.inspect_weights(self.step, self.model.parameters()))

    def _stops_here(self) -> bool:
        """End the call, unless weights are not finite: then the trial goes on to the inspection that says so."""
        self._end_at(self._watch.inspect_losses(self.step))
        if not self.reason and math.isfinite(rms(self.model.parameters())):
            self.reason = f"asked to stop after step {self.step}"
        return bool(self.reason)

    def _end_at(self, diverged_at: int | None) -> None:
        if diverged_at is not None:
            self.step, self.reason = diverged_at, self._watch.reason

    def _is_asked(self, should_stop: Callable[[], bool]) -> bool:
        now = self._clock()
        if now - self._asked_at < ASK_EVERY_SECONDS:
            return False
        self._asked_at = now
        return should_stop()

    def _outcome(self) -> Outcome:
        if self._watch.reason:
            return Outcome.DIVERGED
        return Outcome.INTERRUPTED if self.reason else Outcome.REACHED

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        promised = [name for name in self.setting.task.metrics if name not in TRAINING_METRICS]
        if self._watch.reason:
            return dict.fromkeys(promised, math.nan)
        self.model.eval()
        with self._autocast():
            metrics = self.setting.task.evaluate(self.model, self.setting.data_seed)
        self.model.train()
        source = f"{type(self.setting.task).__name__}.evaluate"
        return checked_metrics(metrics, source=source, promised=promised, when=f" at step {self.step}")

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.setting.precision == "bf16":
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return nullcontext()
