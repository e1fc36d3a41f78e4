"""Turns a drawn trial into what a slot needs to train it."""

from __future__ import annotations

from service.campaign.specification import Specification
from service.data_directory import DataDirectory
from service.driver.arms import ArmTrial
from trainers.ray_cohort import Assignment
from trainers.schedules import Schedule
from trainers.solo import TrialSetting
from trainers.tasks import task_from_options

CHECKPOINT_SECONDS = 10.0


class AssignmentMaker:
    """Makes the assignments of one attempt.

    Trials with the same seed index start from the same parameters and see the same data, whatever their arm and
    point: comparisons are paired.

    Args:
        specification: What the user asked for.
        data: Where checkpoints go.
        campaign_id: Which campaign.
        attempt: Which attempt.
    """

    def __init__(self, specification: Specification, *, data: DataDirectory, campaign_id: str, attempt: int) -> None:
        self._specification = specification
        self._data = data
        self._campaign_id = campaign_id
        self._attempt = attempt
        self._task = task_from_options(specification.task.name, specification.task.options)
        self._schedule = Schedule(**specification.schedule.given)

    def assignment(self, trial: ArmTrial) -> Assignment:
        """Make the assignment of one trial."""
        specification = self._specification
        return Assignment(
            trial=trial.number,
            setting=TrialSetting(
                task=self._task,
                optimizer=specification.arms[trial.arm.index].optimizer,
                hyperparameters=trial.config,
                schedule=self._schedule,
                steps=specification.task.steps,
                seed=trial.seed_index,
                data_seed=trial.seed_index,
                precision=specification.precision,
            ),
            report_steps=specification.report_steps(),
            checkpoint_folder=self._checkpoints(self._attempt, trial),
            earlier_folders=tuple(self._checkpoints(each, trial) for each in range(self._attempt - 1, 0, -1)),
            checkpoint_seconds=CHECKPOINT_SECONDS,
            cpus=specification.resources.cpus,
        )

    def _checkpoints(self, attempt: int, trial: ArmTrial) -> str:
        return str(self._data.checkpoints(self._campaign_id, attempt, trial.number))
