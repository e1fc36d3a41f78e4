"""What differs between lanes from step to step: hyperparameters as vectors, learning rates by each lane's schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spectune.trainers.engines.lane_stack import LaneBundle, LaneStack
from spectune.trainers.schedules import Schedule
from spectune.trainers.setting import TrialSetting


class LaneRates:
    """The hyperparameters of some lanes, for steps that they take side by side.

    Args:
        work: The lanes.
        settings: The trial of each.
        groups: The options of each trial's parameter groups, `initial_lr` and `weight_decay` among them.
        steps: How many steps each has taken.
    """

    def __init__(
        self,
        work: LaneStack,
        settings: Sequence[TrialSetting],
        groups: Sequence[Sequence[Mapping[str, Any]]],
        steps: Sequence[int],
    ) -> None:
        weight = work.weights[0]
        self._dtype, self._device = weight.dtype, weight.device
        self._of_bundle = {bundle.names: self._vectors(bundle, groups) for bundle in work.bundles}
        indices = range(len(groups[0]))
        self._base = [self._vector([lane[index]["initial_lr"] for lane in groups]) for index in indices]
        self._decay = [self._vector([lane[index]["weight_decay"] for lane in groups]) for index in indices]
        self._decays = [bool(decay.any()) for decay in self._decay]
        places: dict[tuple[Schedule, int, int], int] = {}
        lanes = [
            places.setdefault((each.schedule, each.steps, step), len(places))
            for each, step in zip(settings, steps, strict=True)
        ]
        self._courses = list(places)
        self._course_of_lane = torch.tensor(lanes, device=self._device)
        self._factors: list[float] = []
        self._now: dict[tuple[str, ...], tuple[Tensor, Tensor | None]] = {}

    def hyperparameters(self, bundle: LaneBundle) -> Mapping[str, Any]:
        """Return a bundle's hyperparameters: numbers where all lanes agree, else tensors that broadcast."""
        return self._of_bundle[bundle.names]

    def go_to(self, taken: int) -> None:
        """Set the rates to those of the step after `taken` more, asking a schedule once for the lanes that share it."""
        factors = [schedule.factor(first + taken, steps) for schedule, steps, first in self._courses]
        if factors != self._factors:
            self._factors, self._now = factors, {}

    def of(self, bundle: LaneBundle) -> tuple[Tensor, Tensor | None]:
        """Return a bundle's learning rates γ, and 1 - γ λ where a lane decays; they broadcast."""
        if bundle.names not in self._now:
            factors = torch.tensor(self._factors, dtype=torch.float64, device=self._device)[self._course_of_lane]
            rates = self._base[bundle.group] * factors
            decays = 1 - rates * self._decay[bundle.group] if self._decays[bundle.group] else None
            shaped = [None if each is None else bundle.broadcast(each.to(self._dtype)) for each in (rates, decays)]
            assert shaped[0] is not None
            self._now[bundle.names] = shaped[0], shaped[1]
        return self._now[bundle.names]

    def _vectors(self, bundle: LaneBundle, groups: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
        lanes = [lane[bundle.group] for lane in groups]
        skipped = ("params", "param_names", "lr", "initial_lr", "weight_decay")
        return {name: self._value(bundle, [lane[name] for lane in lanes]) for name in lanes[0] if name not in skipped}

    def _value(self, bundle: LaneBundle, values: list[Any]) -> Any:
        if all(value == values[0] for value in values):
            return values[0]
        if isinstance(values[0], tuple):  # betas
            return tuple(bundle.broadcast(self._vector(each)) for each in zip(*values, strict=True))
        if all(isinstance(value, int) for value in values):
            return bundle.broadcast(torch.tensor(values))  # counts of steps are read on the host
        return bundle.broadcast(self._vector(values).to(self._dtype))

    def _vector(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self._device)
