"""A member of a population: what its trial is and where it stands. Its numbers are a lane of the stack."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spectune.trainers.checkpoints import State
from spectune.trainers.engines.divergence import Watch
from spectune.trainers.engines.lane_stack import LaneStack
from spectune.trainers.engines.solo import INSPECT_EVERY, Outcome
from spectune.trainers.engines.step_timing import StepTimes
from spectune.trainers.setting import TrialSetting
from spectune.trainers.tasks.task import TRAINING_METRICS, items_per_step


@dataclass
class Member:
    """A trial in training.

    Attributes:
        trial: Its number.
        setting: What is trained.
        groups: As in the state dict of its optimizer.
        watch: Watches its losses and weights.
        step: Steps taken; after divergence, those up to and including the one that ended it.
        interruption: Why the last call ended before its target though nothing is wrong with it, else empty.
        times: Its share of the steps since its last report.
        is_alone: Whether it shared none of these with another.
    """

    trial: int
    setting: TrialSetting
    groups: list[dict[str, Any]]
    watch: Watch
    step: int = 0
    interruption: str = ""
    times: StepTimes = dataclasses.field(default_factory=StepTimes)
    is_alone: bool = True

    @property
    def reason(self) -> str:
        """Why it did not reach its target, else empty."""
        return self.watch.reason or self.interruption

    @property
    def outcome(self) -> Outcome:
        """How the last call ended for it."""
        if self.watch.reason:
            return Outcome.DIVERGED
        return Outcome.INTERRUPTED if self.interruption else Outcome.REACHED

    def factor(self) -> float:
        """Return the schedule's factor at the last step taken."""
        return self.setting.schedule.factor(max(self.step - 1, 0), self.setting.steps)

    def steps_until_due(self, target: int) -> int:
        """Return after how many steps the solo engine would look at its numbers."""
        return min(INSPECT_EVERY - self.step % INSPECT_EVERY, target - self.step)

    def report(self, evaluated: Mapping[str, float] | None, spectra: Mapping[str, float]) -> dict[str, float]:
        """Sum up the steps since the report before, beside an evaluation; None where it has diverged."""
        metrics = {"lr": float(self.groups[0]["initial_lr"]) * self.factor(), "timing_valid": float(self.is_alone)}
        metrics |= self.times.metrics(items_per_step(self.setting.task))
        if self.watch.loss_count:
            metrics["loss"] = self.watch.loss_sum / self.watch.loss_count
        nowhere = {name: math.nan for name in self.setting.task.metrics if name not in TRAINING_METRICS}
        metrics |= spectra
        metrics |= nowhere if evaluated is None else evaluated
        self.watch.forget_losses()
        self.times, self.is_alone = StepTimes(), True
        return metrics

    def state(self) -> State:
        """Copy what is no number of its lane: a part of a trial's state."""
        return {
            "setting": self.setting.identity(),
            "step": self.step,
            "watch": self.watch.state(),
            "times": dataclasses.asdict(self.times),
        }

    def param_groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups as the solo engine writes them after the last step."""
        return [{**group, "lr": group["initial_lr"] * self.factor()} for group in self.groups]

    def restore(self, lane: LaneStack, state: State) -> None:
        """Go on from a state of either engine; `lane` takes over the numbers.

        Raises:
            CheckpointError: The state belongs to a trial with another setting.
        """
        self.setting.refuse_other(state["setting"])
        lane.load_lane(0, state["model"], state["optimizer"]["state"])
        self.watch.restore(state["watch"])
        self.times = StepTimes(**state["times"])
        self.step = state["step"]
