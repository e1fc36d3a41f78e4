"""The second half of a step: what was found for each stack of matrices, written when all of it is there.

Until then parameters and states are only read, so a solver that fails, or memory that is not to be had, leaves an
optimizer as it was. Directions that lie in borrowed memory are copied when the next batch is about to write over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from spectune.optimizers.arithmetic import without_autocast
from spectune.optimizers.rules.spectral import SpectralRule, State
from spectune.optimizers.scratch import may_be_scratch, scratch
from spectune.optimizers.stages.parameter_updates import write_

KEPT_PLACES: Final = 16
"""Updates of one step that are copied to memory which is kept: 2 MiB each as stacks on a CPU are capped."""


@dataclass
class PlannedWrite:
    """What a step writes to a stack of matrices of one shape.

    Attributes:
        parameters: The matrices.
        gradients: Of each, negated to ascend.
        states: Of each, written in place.
        update: What is subtracted, [count, rows, columns].
        stacked: Entries of the new states, [count, ...]; `rule.advance_` writes the others.
        group: Options of the group.
        rule: How updates are made.
    """

    parameters: list[Tensor]
    gradients: list[Tensor]
    states: list[State]
    update: Tensor
    stacked: State
    group: dict[str, Any]
    rule: SpectralRule

    def __post_init__(self) -> None:
        lends = self.rule.is_staged and self.rule.factor(1, 1) is not None
        self.is_borrowed = lends and may_be_scratch(self.update)

    def hold(self, place: int) -> None:
        """Copy an update out of borrowed memory; the first few places of a step have memory of their own."""
        if place < KEPT_PLACES and self.update.is_contiguous():
            self.update = scratch(self.update.shape, f"step.held.{place}", like=self.update).copy_(self.update)
        else:
            self.update = self.update.clone()
        self.is_borrowed = False

    def do(self) -> None:
        """Write states and parameters."""
        self.rule.advance_(self.gradients, self.states, self.group)
        for name, values in self.stacked.items():
            torch._foreach_copy_([entry[name] for entry in self.states], list(values.unbind()))
        factor = self.rule.factor(*self.parameters[0].shape) if self.rule.is_staged else None
        lr, weight_decay = self.group["lr"], self.group["weight_decay"]
        write_(self.parameters, self.update, lr=lr, weight_decay=weight_decay, factor=factor or 1.0)


def hold(planned: list[PlannedWrite]) -> None:
    """Copy what the last batch has borrowed, before the next one borrows it."""
    for place in range(len(planned) - 1, -1, -1):
        if not planned[place].is_borrowed:
            return
        planned[place].hold(place)


@contextmanager
def own_modes(groups: Iterable[Iterable[Tensor]]) -> Iterator[None]:
    """Leave the modes that a step must not take on: autocast, and inference mode if the parameters are not of it."""
    first = next((parameter for group in groups for parameter in group), None)
    if first is None or torch.compiler.is_compiling():
        yield
    elif torch.is_inference_mode_enabled() and not first.is_inference():
        with without_autocast(first.device), torch.inference_mode(False), torch.no_grad():
            yield
    else:
        with without_autocast(first.device):
            yield
