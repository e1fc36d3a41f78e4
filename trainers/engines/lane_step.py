"""One step of many lanes: one call of the model for all of them, one of the optimizer's stages for all of a shape.

    (L_k, G_k) = vmap(value and gradient)(W, batch)
    U, S       = rule.update(G, S, hyperparameters)
    W_k        <- (1 − γ_k λ_k) W_k − γ_k U_k

No lane reads another's, so one backward pass of the sum of losses gives each lane its own gradient. An update is
computed whole before any weight is written: a step that runs out of memory has changed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from spectune.trainers.engines.fusibility import LossModule
from spectune.trainers.engines.lane_batches import LaneBatches
from spectune.trainers.engines.lane_rates import LaneRates
from spectune.trainers.engines.lane_stack import LaneStack
from spectune.trainers.engines.step_timing import StepTimer
from spectune.trainers.gradient_noise import noise_of
from spectune.trainers.setting import TrialSetting
from spectune.trainers.tasks.task import Batch


class LaneStep:
    """Takes steps of lanes of one structure.

    Args:
        setting: A trial of the structure.
        loss: Its task's loss of its model.
        timer: Measures the steps.
    """

    def __init__(self, setting: TrialSetting, loss: LossModule, timer: StepTimer) -> None:
        self._loss = loss
        self._timer = timer
        self._batches = LaneBatches(setting.task, loss.model)
        self._noise = noise_of(setting.task)
        name_of = {id(each): name for name, each in loss.model.named_parameters()}
        # Every name of a tied parameter, so that `functional_call` need not look for ties at each step.
        self._names = {name: name_of[id(each)] for name, each in loss.named_parameters(remove_duplicate=False)}
        self._of_lanes = {
            is_shared: vmap(self._of_lane, in_dims=(0, None if is_shared else 0)) for is_shared in (True, False)
        }
        self._setting = setting

    def take(self, work: LaneStack, settings: Sequence[TrialSetting], steps: Sequence[int], rates: LaneRates) -> Tensor:
        """Take one step of every lane.

        Args:
            work: The lanes, which are changed.
            settings: The trial of each.
            steps: How many steps each has taken.
            rates: Set to these steps.

        Returns:
            The losses before the step, [lanes]. Nothing has changed where it raises.
        """
        started = self._timer.start_step(max(steps))
        gradients, losses = self._gradients(work, settings, steps)
        optimizer_started = self._timer.start_optimizer()
        with torch.no_grad():
            self._disturb(gradients, settings, steps)
            updates = []
            for bundle, state in zip(work.bundles, work.states, strict=True):
                stacked = torch.stack([gradients[name] for name in bundle.names])
                updates.append(bundle.rule.update(stacked, state, rates.hyperparameters(bundle)))
            for index, (bundle, (update, state)) in enumerate(zip(work.bundles, updates, strict=True)):
                rate, decay = rates.of(bundle)
                if decay is not None:
                    work.weights[index].mul_(decay)
                work.weights[index].addcmul_(update, rate, value=-1)
                work.states[index] = state
        self._timer.end_step(started, optimizer_started)
        return losses.detach()

    def _gradients(
        self, work: LaneStack, settings: Sequence[TrialSetting], steps: Sequence[int]
    ) -> tuple[dict[str, Tensor], Tensor]:
        batch, is_shared = self._batches.at(settings, steps)
        leaves = {name: each.detach().requires_grad_() for name, each in work.parameters().items()}
        with autocast(self._setting):
            losses = self._of_lanes[is_shared](tuple(leaves[name] for name in self._names.values()), batch)
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, gradients, strict=True)), losses

    def _of_lane(self, parameters: tuple[Tensor, ...], batch: Batch) -> Tensor:
        named = dict(zip(self._names, parameters, strict=True))
        value: Tensor = functional_call(self._loss, named, batch, tie_weights=False)
        return value

    def _disturb(self, gradients: dict[str, Tensor], settings: Sequence[TrialSetting], steps: Sequence[int]) -> None:
        """Add the noise that the task asks for, each lane's own, in place of the gradients."""
        for name, gradient in gradients.items() if self._noise is not None else ():
            assert self._noise is not None
            seeds = [setting.data_seed for setting in settings]
            gradients[name] = self._noise.disturb_stack(name, gradient, seeds=seeds, steps=steps)


def autocast(setting: TrialSetting) -> AbstractContextManager[Any]:
    """Return the context in which losses are computed."""
    if setting.precision == "bf16":
        return torch.autocast(torch.device(setting.device).type, dtype=torch.bfloat16)
    return nullcontext()
