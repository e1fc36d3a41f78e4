"""Trainers: tasks, the engines that train them, and their checkpoints.

One line a file:

    tasks/            what is trained, one file each; `TASKS` lists them
    data/             files that tasks read
    options           the error of an option that cannot be used
    seeds             one random generator per purpose
    schedules         the learning rate over a trial
    setting           what one trial is
    solo              one trial: a plain module and the normal loop
    gradient_noise    outliers added to gradients on purpose
    divergence        when a trial is beyond hope
    step_timing       how long steps take
    spectra           what the momenta's spectra say of an optimizer
    population        many trials of one structure, trained as one
    member            what a trial of a population is and where it stands
    lane_*            the stack: weights and states, batches, rates, one step, evaluation
    structure         what trials must have in common for that
    fusibility        whether trials of a task can be one stack
    plan              how many trials are best trained together
    fused_step_check  a step among others against the same step alone
    cohorts           trials in training in one process, whichever engine trains them
    compiler          spares a worker torch's compiler
    products          lets products of matrices give the same bits in any batch
    checkpoints       the states of a slot's trials in a file whose entries are whole or refused
    messages          what the driver and a slot tell each other
    slot              a worker that trains cohorts, told by commands what to do
    ray_cohort        the slot as Ray Tune sees it
"""

from __future__ import annotations

from spectune.trainers.checkpoints import CheckpointError
from spectune.trainers.engines.solo import Outcome, SoloTrial
from spectune.trainers.options import OptionError
from spectune.trainers.schedules import Schedule, ScheduleOptionError
from spectune.trainers.setting import TrialSetting
from spectune.trainers.tasks import TASKS, Task, TaskOptionError, task_from_options

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
