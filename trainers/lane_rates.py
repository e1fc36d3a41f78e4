"""What differs between lanes from step to step: hyperparameters as vectors, learning rates by each lane's schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainers.lane_stack import Bundle, LaneStack
from trainers.setting import TrialSetting


class LaneRates:
    """The hyperparameters of some lanes.

    Args:
        work: The lanes.
        settings: The trial of each.
        groups: The options of each trial's parameter groups, `initial_lr` and `weight_decay` among them.
    """

    def __init__(
        self, work: LaneStack, settings: Sequence[TrialSetting], groups: Sequence[Sequence[Mapping[str, Any]]]
    ) -> None:
        weight = work.weights[0]
        self._dtype, self._device = weight.dtype, weight.device
        self._settings = settings
        self._of_bundle = {bundle.names: self._vectors(bundle, groups) for bundle in work.bundles}
        indices = range(len(groups[0]))
        self._base = [self._vector([lane[index]["initial_lr"] for lane in groups]) for index in indices]
        self._decay = [self._vector([lane[index]["weight_decay"] for lane in groups]) for index in indices]
        self._decays = [bool(decay.any()) for decay in self._decay]
        self._factors: tuple[float, ...] = ()
        self._now: dict[tuple[str, ...], tuple[Tensor, Tensor | None]] = {}

    def hyperparameters(self, bundle: Bundle) -> Mapping[str, Any]:
        """Give a bundle's hyperparameters: numbers where all lanes agree, else tensors that broadcast."""
        return self._of_bundle[bundle.names]

    def at(self, bundle: Bundle, steps: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Give the learning rates γ of the step after `steps`, and 1 - γ λ where a lane decays; they broadcast."""
        factors = self._factors_at(steps)
        if factors != self._factors:
            self._factors, self._now = factors, {}
        if bundle.names not in self._now:
            rates = self._base[bundle.group] * torch.tensor(factors, dtype=torch.float64, device=self._device)
            decays = 1 - rates * self._decay[bundle.group] if self._decays[bundle.group] else None
            shaped = [None if each is None else bundle.broadcast(each.to(self._dtype)) for each in (rates, decays)]
            assert shaped[0] is not None
            self._now[bundle.names] = shaped[0], shaped[1]
        return self._now[bundle.names]

    def _factors_at(self, steps: Sequence[int]) -> tuple[float, ...]:
        """Evaluate each schedule once for the lanes that share it and stand at one step."""
        known: dict[tuple[int, int, int], float] = {}
        factors = []
        for setting, step in zip(self._settings, steps, strict=True):
            key = id(setting.schedule), setting.steps, step
            if key not in known:
                known[key] = setting.schedule.factor(step, setting.steps)
            factors.append(known[key])
        return tuple(factors)

    def _vectors(self, bundle: Bundle, groups: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
        lanes = [lane[bundle.group] for lane in groups]
        skipped = ("params", "param_names", "lr", "initial_lr", "weight_decay")
        return {name: self._value(bundle, [lane[name] for lane in lanes]) for name in lanes[0] if name not in skipped}

    def _value(self, bundle: Bundle, values: list[Any]) -> Any:
        if all(value == values[0] for value in values):
            return values[0]
        if isinstance(values[0], tuple):  # betas
            return tuple(bundle.broadcast(self._vector(each)) for each in zip(*values, strict=True))
        if all(isinstance(value, int) for value in values):
            return bundle.broadcast(torch.tensor(values))  # counts of steps are read on the host
        return bundle.broadcast(self._vector(values).to(self._dtype))

    def _vector(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self._device)
