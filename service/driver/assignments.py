"""Turns a drawn trial into what a slot needs to train it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from spectune.service.campaign.specification.made_explicit import completed_config
from spectune.service.campaign.specification.specification import Specification
from spectune.service.driver.arm_trial import ArmTrial
from spectune.trainers.schedules import Schedule
from spectune.trainers.setting import TrialSetting
from spectune.trainers.tasks import task_from_options
from spectune.trainers.worker.messages import Assignment


class MakeAssignment(Protocol):
    """Makes the assignment of a trial, which is to be alone in its slot or not."""

    def __call__(self, trial: ArmTrial, *, is_alone: bool) -> Assignment:
        """Make it."""


class AssignmentMaker:
    """Makes the assignments of a campaign.

    Trials with the same seed index start from the same parameters and see the same data, whatever their arm and
    point: comparisons are paired.
    """

    def __init__(self, specification: Specification) -> None:
        self._specification = specification
        self._task = task_from_options(specification.task.name, specification.task.options)
        self._schedule = Schedule(**specification.schedule.given)
        self._report_steps = specification.report_steps()
        self._device = "cuda" if specification.resources.gpus else "cpu"

    def assignment(self, trial: ArmTrial, *, is_alone: bool) -> Assignment:
        """Make the assignment of one trial, which is to be alone in its slot or not."""
        setting = self.setting(arm=trial.arm.index, config=trial.config, seed_index=trial.seed_index)
        return Assignment(trial.number, setting, self._report_steps, is_new=trial.is_new, is_alone=is_alone)

    def setting(self, *, arm: int, config: Mapping[str, Any], seed_index: int) -> TrialSetting:
        """Return what a trial trains and how.

        Args:
            arm: Index of its arm.
            config: Its hyperparameters.
            seed_index: Which seed, of model and data.
        """
        optimizer, precision = self._specification.arms[arm].optimizer, self._specification.precision
        return TrialSetting(
            task=self._task,
            optimizer=optimizer,
            hyperparameters=completed_config(optimizer, config, precision=precision, on_gpu=self._device == "cuda"),
            schedule=self._schedule,
            steps=self._specification.task.steps,
            seed=seed_index,
            data_seed=seed_index,
            precision=precision,
            device=self._device,
        )
