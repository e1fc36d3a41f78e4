"""Evaluation of lanes: those that share data in one call, where the task can measure without leaving tensors."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from trainers.lane_stack import LaneStack
from trainers.lane_step import autocast
from trainers.setting import TrialSetting

Evaluated = dict[str, float] | str
"""The metrics; the traceback where measuring them raised."""


class LaneEvaluation:
    """Evaluates lanes of one structure.

    Args:
        setting: A trial of the structure.
        model: Its model, whose parameters are put aside for those of the lanes.
    """

    def __init__(self, setting: TrialSetting, model: nn.Module) -> None:
        self._setting = setting
        self._model = model
        self._measure, self._evaluate = _Measure(setting, model), _Evaluate(setting, model)

    @torch.no_grad()
    def evaluate(self, stack: LaneStack, data_seeds: Mapping[int, int]) -> dict[int, Evaluated]:
        """Evaluate lanes.

        Args:
            stack: All lanes.
            data_seeds: Of the lanes that are asked for, by lane.
        """
        found: dict[int, Evaluated] = {}
        of_seed: dict[int, list[int]] = {}
        for lane, seed in sorted(data_seeds.items()):
            of_seed.setdefault(seed, []).append(lane)
        for seed, lanes in of_seed.items():
            try:
                found |= self._together(stack, lanes, seed)
            except Exception:  # of one of them, or the task measures in plain numbers: each for itself
                found |= {lane: self._alone(stack, lane, seed) for lane in lanes}
        return found

    def _together(self, stack: LaneStack, lanes: list[int], seed: int) -> dict[int, Evaluated]:
        some = stack if lanes == list(range(stack.num_lanes)) else stack.select(lanes)

        def of_lane(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
            measured: dict[str, Tensor] = functional_call(self._measure, _prefixed(parameters), (seed,))
            return measured

        with _in_evaluation(self._model), autocast(self._setting):
            measured = vmap(of_lane)(some.parameters())
        columns = {name: values.double().cpu().tolist() for name, values in measured.items()}
        return {lane: {name: values[row] for name, values in columns.items()} for row, lane in enumerate(lanes)}

    def _alone(self, stack: LaneStack, lane: int, seed: int) -> Evaluated:
        parameters = {name: each[lane] for name, each in stack.parameters().items()}
        try:
            with _in_evaluation(self._model), autocast(self._setting):
                metrics: dict[str, float] = functional_call(self._evaluate, _prefixed(parameters), (seed,))
        except Exception:
            return traceback.format_exc()
        return metrics


class _OfTask(nn.Module):
    """A function of a task and a model as a module, whose parameters `functional_call` can replace."""

    def __init__(self, setting: TrialSetting, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._task: Any = setting.task


class _Measure(_OfTask):
    def forward(self, seed: int) -> dict[str, Tensor]:
        measured: dict[str, Tensor] = self._task.measure(self.model, seed)
        return measured


class _Evaluate(_OfTask):
    def forward(self, seed: int) -> dict[str, float]:
        metrics: dict[str, float] = self._task.evaluate(self.model, seed)
        return metrics


def _prefixed(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in parameters.items()}


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    model.eval()
    try:
        yield
    finally:
        model.train()
