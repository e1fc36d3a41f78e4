"""What lanes are trained on: the batch of each lane's step and data seed, stacked, on the device.

Lanes that share a batch share its tensors, and the model then sees one batch for all of them. A task whose batch is
fixed is asked once a seed, and a stack is made again only when another one is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from spectune.trainers.setting import TrialSetting
from spectune.trainers.tasks.task import Batch, Task, batch_is_fixed, place
from spectune.trainers.user_code import checked_batch


class LaneBatches:
    """The batches of trials of one task.

    Args:
        task: Of all trials.
        model: One on the device and in the dtype of the training.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        self._task = task
        self._model = model
        self._is_fixed = batch_is_fixed(task)
        self._settings: Sequence[TrialSetting] = ()
        self._keys: list[tuple[int, int]] = []
        self._placed: tuple[Batch, bool] = ((), False)

    def at(self, settings: Sequence[TrialSetting], steps: Sequence[int]) -> tuple[Batch, bool]:
        """Return the lanes' batches, and whether it is one for all lanes; else each tensor is [lanes, ...]."""
        if self._is_fixed and settings is self._settings:
            return self._placed
        ats = [0] * len(steps) if self._is_fixed else steps
        keys = [(step, setting.data_seed) for step, setting in zip(ats, settings, strict=True)]
        if keys != self._keys:
            self._placed = self._stacked(keys)
            self._keys = keys
        self._settings = settings
        return self._placed

    def _stacked(self, keys: Sequence[tuple[int, int]]) -> tuple[Batch, bool]:
        found = {key: self._batch(*key) for key in dict.fromkeys(keys)}
        first = found[keys[0]]
        if all(source is first for source in found.values()):
            return place(first, self._model), True
        placed = {key: place(source, self._model) for key, source in found.items()}
        return tuple(torch.stack(parts) for parts in zip(*(placed[key] for key in keys), strict=True)), False

    def _batch(self, step: int, seed: int) -> Batch:
        source = f"{type(self._task).__name__}.batch"
        return checked_batch(self._task.batch(step, seed), source=source, when=f" at step {step}")
