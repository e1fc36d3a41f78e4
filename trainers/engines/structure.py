"""What trials must have in common to train as one stack, and how many of a structure are known to fit into memory."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from spectune.optimizers import OPTIMIZERS
from spectune.trainers.setting import TrialSetting

_most_lanes: dict[Hashable, int] = {}
"""Where more were tried in this process and did not fit."""


def structure_of(setting: TrialSetting) -> Hashable:
    """Return what trials that train together have in common: all but seeds, steps and elementwise hyperparameters."""
    entry, given = OPTIMIZERS.get(setting.optimizer), setting.hyperparameters
    table = {} if entry is None else entry.hyperparameters
    fixed = tuple((name, repr(given.get(name))) for name, each in table.items() if not each.elementwise)
    task = (setting.task.name, repr(setting.task))
    return task, setting.optimizer, fixed, setting.precision, setting.device


def known_bound(setting: TrialSetting) -> int | None:
    """Return how many lanes like this trial fit into memory, where more did not; None where nothing is known."""
    return _most_lanes.get(structure_of(setting))


def remember_bound(setting: TrialSetting, num_lanes: int) -> None:
    """Remember that no more lanes like this trial than these may be trained at once."""
    _most_lanes[structure_of(setting)] = num_lanes


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether memory was refused: a device's, or the processor's, for which torch has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
