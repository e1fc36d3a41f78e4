"""Divergence: when a trial is beyond hope.

A trial has diverged when a loss or a weight is not finite (a gradient that is not finite makes the weights so), when a
loss exceeds `LOSS_GROWTH` times the first one, or when the root mean square of all weights exceeds `WEIGHT_GROWTH`
times its start: bounded spectral updates never overflow by themselves. A start of zero sets no bound.

Reading a number makes an accelerator wait, so losses are inspected in blocks. Each loss of a block still counts at its
own step, so that the step that ends a trial does not depend on where the blocks lie.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

LOSS_GROWTH = 10.0
WEIGHT_GROWTH = 1e4


def rms(weights: Iterable[Tensor]) -> float:
    """Return the root mean square of all entries of all tensors; not finite if one entry is not."""
    tensors = [weight.detach() for weight in weights]
    return get_total_norm(tensors).item() / math.sqrt(sum(tensor.numel() for tensor in tensors))


def loss_problem(loss: float, first: float, *, step: int) -> str:
    """Return why the loss of a step ends a trial whose first loss was `first`; empty where it does not."""
    if not math.isfinite(loss):
        return f"the loss is {loss} at step {step}"
    if first > 0.0 and loss > LOSS_GROWTH * first:
        return f"the loss {loss:.3g} is above {LOSS_GROWTH:g} times its start at step {step}"
    return ""


def weights_problem(now: float, first: float, *, step: int) -> str:
    """Return why the root mean square of the weights after a step ends a trial; empty where it does not."""
    if not math.isfinite(now):
        return f"the weights are not finite after step {step}"
    if first and now > WEIGHT_GROWTH * first:
        return f"the weights are {now / first:.3g} times their start after step {step}"
    return ""


class Watch:
    """Watches one trial's losses and weights.

    Attributes:
        reason: Why the trial has diverged; empty while it has not.
        loss_sum: Sum of the losses inspected since `forget_losses`.
        loss_count: Their number.
    """

    def __init__(self, first_rms: float) -> None:
        self.reason = ""
        self.loss_sum, self.loss_count = 0.0, 0
        self._first_rms = first_rms
        self._first_loss: float | None = None
        self._pending: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Take a step's loss, without reading it yet."""
        self._pending.append(loss.detach())

    def inspect_losses(self, step: int) -> int | None:
        """Read the losses taken so far, of which the last belongs to `step`.

        Returns:
            The first step that diverged, if one did; later losses are dropped.
        """
        losses: list[float] = torch.stack(self._pending).tolist() if self._pending else []
        self._pending.clear()
        return self.enter_losses(losses, step)

    def enter_losses(self, losses: Sequence[float], step: int) -> int | None:
        """Take losses that were read elsewhere, of which the last belongs to `step`; as `inspect_losses`."""
        if self.reason or not losses:
            return None
        first = self._first_loss
        total = self.loss_sum
        for loss in losses:
            total += loss
        if first is not None and math.isfinite(total) and (first <= 0.0 or max(losses) <= LOSS_GROWTH * first):
            self.loss_sum, self.loss_count = total, self.loss_count + len(losses)
            return None
        for at, loss in enumerate(losses, start=step - len(losses) + 1):
            self.loss_sum += loss
            self.loss_count += 1
            if self._refuses(loss, at):
                return at
        return None

    def inspect_weights(self, step: int, weights: Iterable[Tensor]) -> int | None:
        """Compare the weights after `step` with their bound; gives `step` if they have diverged."""
        return self.enter_rms(rms(weights), step)

    def enter_rms(self, now: float, step: int) -> int | None:
        """Take the root mean square of the weights after `step`, measured elsewhere; as `inspect_weights`."""
        self.reason = weights_problem(now, self._first_rms, step=step)
        return step if self.reason else None

    def forget_losses(self) -> None:
        """Begin a new mean."""
        self.loss_sum, self.loss_count = 0.0, 0

    def state(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        assert not self._pending, "inspect before taking the state"
        return {
            "reason": self.reason,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "first_rms": self._first_rms,
            "first_loss": self._first_loss,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self._pending.clear()
        self.reason = state["reason"]
        self.loss_sum, self.loss_count = state["loss_sum"], state["loss_count"]
        self._first_rms, self._first_loss = state["first_rms"], state["first_loss"]

    def _refuses(self, loss: float, step: int) -> bool:
        if self._first_loss is None:
            self._first_loss = loss
        self.reason = loss_problem(loss, self._first_loss, step=step)
        return bool(self.reason)
