"""Whether trials of a task can be trained as one stack: tried once, on two copies of the model and one batch each.

    vmap(grad(loss))(stacked parameters, stacked batches)

must run without leaving vmap's own rules: an operator without one would be looped over the trials, which is what one
fuses them to avoid.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from trainers.seeds import generator_for
from trainers.tasks.task import Batch, Task, place

_OPERATOR = re.compile(r"aten::\w+(\.\w+)?")


class LossModule(nn.Module):
    """A task's loss as a module's `forward`, so that `functional_call` can put other parameters in its place.

    Its parameters are those of the model, each under "model." and its own name.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task = task
        self.model = model

    def forward(self, *batch: Tensor) -> Tensor:
        """Give the loss."""
        return self.task.loss(self.model, batch)


def fusion_problem(task: Task) -> str | None:
    """Say in one sentence why trials of a task cannot be trained as one stack; None where they can.

    The task's model is built and one of its batches made, both on the CPU, once in a process.
    """
    return _problem_of(cast(Hashable, task))


@lru_cache(maxsize=64)
def _problem_of(of: Hashable) -> str | None:
    task = cast(Task, of)
    model = task.build(generator_for("model", 0))
    if any(buffer.requires_grad for buffer in model.buffers()):
        return "the model has a buffer that is trained"
    batch = place(task.batch(0, 0), model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _stacked_gradients(LossModule(task, model), batch)
    except (RuntimeError, ValueError, TypeError, NotImplementedError, Warning) as error:
        return _sentence(error)
    return None


def _stacked_gradients(module: LossModule, batch: Batch) -> dict[str, Tensor]:
    parameters = {name: torch.stack([each.detach()] * 2) for name, each in module.named_parameters()}
    batches = tuple(torch.stack([part] * 2) for part in batch)

    def loss(of: dict[str, Tensor], batch: Batch) -> Tensor:
        value: Tensor = functional_call(module, of, batch)
        return value

    gradients: dict[str, Tensor] = vmap(grad(loss), randomness="error")(parameters, batches)
    return gradients


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    operator = _OPERATOR.search(text)
    if operator is not None:
        return f"the loss uses {operator[0]}, which torch cannot batch over trials"
    if ".item()" in text or "data-dependent control flow" in text:
        return "the loss uses .item() or branches on a tensor's value (aten::_local_scalar_dense)"
    return f"torch cannot batch the loss over trials: {text[:200] or type(error).__name__}"
