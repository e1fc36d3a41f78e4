"""Trainers: tasks, the engines that train them, and their checkpoints.

One line a file:

    tasks/          what is trained, one file each; `TASKS` lists them
    data/           files that tasks read
    options         the error of an option that cannot be used
    seeds           one random generator per purpose
    schedules       the learning rate over a trial
    setting         what one trial is
    solo            one trial: a plain module and the normal loop
    gradient_noise  outliers added to gradients on purpose
    fusibility      whether trials of a task can be one stack
    divergence      when a trial is beyond hope
    step_timing     how long steps take
    cohorts         trials in training in one process, whichever engine trains them
    compiler        spares a worker torch's compiler
    checkpoints     the states of a slot's trials in a file whose entries are whole or refused
    slot            a worker that trains cohorts, told by verdicts what to do
    ray_cohort      the slot as Ray Tune sees it
"""

from __future__ import annotations

from trainers.checkpoints import CheckpointError
from trainers.options import OptionError
from trainers.schedules import Schedule, ScheduleOptionError
from trainers.setting import TrialSetting
from trainers.solo import Outcome, SoloTrial
from trainers.tasks import TASKS, Task, TaskOptionError, task_from_options

__all__ = [
    "TASKS",
    "CheckpointError",
    "OptionError",
    "Outcome",
    "Schedule",
    "ScheduleOptionError",
    "SoloTrial",
    "Task",
    "TaskOptionError",
    "TrialSetting",
    "task_from_options",
]
