"""Evaluation of lanes: those that share data in one call, where the task can measure without leaving tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from spectune.trainers.engines.lane_stack import LaneStack
from spectune.trainers.engines.lane_step import autocast
from spectune.trainers.setting import TrialSetting
from spectune.trainers.tasks.task import TRAINING_METRICS
from spectune.trainers.user_code import UserCodeError, checked_metrics, failure_text

Evaluated = dict[str, float] | str
"""The metrics, or what is recorded of a failure to measure them."""


class LaneEvaluation:
    """Evaluates lanes of one structure.

    Args:
        setting: A trial of the structure.
        model: Its model, whose parameters are put aside for those of the lanes.
    """

    def __init__(self, setting: TrialSetting, model: nn.Module) -> None:
        self._setting = setting
        self._model = model
        self._promised = [name for name in setting.task.metrics if name not in TRAINING_METRICS]
        self._measure, self._evaluate = _Measure(setting, model), _Evaluate(setting, model)

    @torch.no_grad()
    def evaluate(
        self, stack: LaneStack, data_seeds: Mapping[int, int], steps: Mapping[int, int]
    ) -> dict[int, Evaluated]:
        """Evaluate lanes.

        Args:
            stack: All lanes.
            data_seeds: Of the lanes that are asked for, by lane.
            steps: How many steps each of them has taken.
        """
        found: dict[int, Evaluated] = {}
        of_seed: dict[int, list[int]] = {}
        for lane, seed in sorted(data_seeds.items()):
            of_seed.setdefault(seed, []).append(lane)
        for seed, lanes in of_seed.items():
            try:
                found |= self._together(stack, lanes, seed)
            except BaseException:  # of one of them, or the task measures in plain numbers: each for itself
                found |= {lane: self._alone(stack, lane, seed, step=steps[lane]) for lane in lanes}
        return found

    def _together(self, stack: LaneStack, lanes: list[int], seed: int) -> dict[int, Evaluated]:
        some = stack if lanes == list(range(stack.num_lanes)) else stack.select(lanes)

        def of_lane(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
            measured: dict[str, Tensor] = functional_call(self._measure, _prefixed(parameters), (seed,))
            return measured

        with _in_evaluation(self._model), autocast(self._setting):
            measured = vmap(of_lane)(some.parameters())
        is_plain = all(each.ndim == 1 and not each.is_complex() for each in measured.values())
        if set(measured) != set(self._promised) or not is_plain:
            raise UserCodeError("what was measured has other names or is no number")  # `_alone` says which
        columns = {name: measured[name].double().cpu().tolist() for name in self._promised if name in measured}
        return {lane: {name: values[row] for name, values in columns.items()} for row, lane in enumerate(lanes)}

    def _alone(self, stack: LaneStack, lane: int, seed: int, *, step: int) -> Evaluated:
        source = f"{type(self._setting.task).__name__}.evaluate"
        parameters = {name: each[lane] for name, each in stack.parameters().items()}
        try:
            with _in_evaluation(self._model), autocast(self._setting):
                metrics = functional_call(self._evaluate, _prefixed(parameters), (seed,))
            return checked_metrics(metrics, source=source, promised=self._promised, when=f" at step {step}")
        except BaseException as error:  # a user's code can raise anything
            return failure_text(error)


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
