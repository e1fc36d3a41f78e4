"""Whether trials of a task can be trained as one stack: tried once, on two trials of different seeds.

    losses = vmap(loss)(stacked parameters, batches),    gradients = ∂ Σ losses / ∂ stacked parameters

must run as the population engine runs it, without leaving vmap's own rules (an operator without one would be looped
over the trials, which is what one fuses them to avoid), and give each trial the loss and the gradients that it has
alone. A model that holds something of its own beside its parameters, such as a constant drawn from the seed, does not.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.task import Batch, Task, place
from spectune.trainers.user_code import checked_batch, checked_loss

TOLERANCE = 1e-3
"""By what a gradient may be off, in units of its norm; fp32 is a thousand times better where nothing is wrong."""

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
        """Return the loss."""
        return checked_loss(self.task.loss(self.model, batch), source=f"{type(self.task).__name__}.loss")


def fusion_problem(task: Task) -> str | None:
    """Say in one sentence why trials of a task cannot be trained as one stack; None where they can.

    Two of the task's models are built and a batch made for each, all on the CPU, once in a process.
    """
    return _problem_of(cast(Hashable, task))


@dataclass(frozen=True)
class _Sample:
    """A trial's first step alone: its loss as a module, its batch, and what came of it."""

    module: LossModule
    batch: Batch
    loss: Tensor
    gradients: dict[str, Tensor]


@lru_cache(maxsize=64)
def _problem_of(of: Hashable) -> str | None:
    task = cast(Task, of)
    modules = [LossModule(task, task.build(generator_for("model", seed))) for seed in (0, 1)]
    for name, parameter in modules[0].model.named_parameters():
        if not parameter.requires_grad:
            return f"the parameter {name} is not trained (requires_grad is false)"
    others = dict(modules[1].model.named_buffers())
    for name, buffer in modules[0].model.named_buffers():
        if not torch.equal(buffer, others[name]):
            return f"the model's buffer {name} differs between seeds, of which all trials would have the same one"
    samples = []
    for seed, module in enumerate(modules):
        batch = checked_batch(task.batch(0, seed), source=f"{type(task).__name__}.batch")
        sample = _alone(module, place(batch, module.model))
        if isinstance(sample, str):
            return sample
        samples.append(sample)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            together = [_together(samples, is_shared=is_shared) for is_shared in (False, True)]
    except (RuntimeError, ValueError, TypeError, NotImplementedError, Warning) as error:
        return _sentence(error)
    return _difference(samples, *together[0])


def _alone(module: LossModule, batch: Batch) -> _Sample | str:
    """Take the first step's gradients as the solo engine does; or say what no stack can do as well."""
    before = {name: buffer.clone() for name, buffer in module.model.named_buffers()}
    parameters = dict(module.named_parameters())
    with torch.random.fork_rng(devices=[]):
        loss = module(*batch)
    found: Sequence[Tensor | None] = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    for name, buffer in module.model.named_buffers():
        if buffer.requires_grad:
            return f"the model's buffer {name} is trained"
        if not torch.equal(buffer, before[name]):
            return f"the loss changes the model's buffer {name}, of which all trials would have the same one"
    gradients = {name: each for name, each in zip(parameters, found, strict=True) if each is not None}
    for name in parameters:
        if name not in gradients:
            return f"the loss gives the parameter {name.removeprefix('model.')} no gradient"
    return _Sample(module, batch, loss.detach(), gradients)


def _together(samples: Sequence[_Sample], *, is_shared: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Take losses and gradients as the population engine does, all trials with the first one's batch where shared."""
    module = samples[0].module
    names = list(samples[0].gradients)
    rows = [dict(sample.module.named_parameters()) for sample in samples]
    leaves = {name: torch.stack([row[name].detach() for row in rows]).requires_grad_() for name in names}
    parts = zip(*(sample.batch for sample in samples), strict=True)
    batch = samples[0].batch if is_shared else tuple(torch.stack(part) for part in parts)

    def of_one(parameters: dict[str, Tensor], batch: Batch) -> Tensor:
        value: Tensor = functional_call(module, parameters, batch)
        return value

    losses = vmap(of_one, in_dims=(0, None if is_shared else 0), randomness="error")(leaves, batch)
    gradients = torch.autograd.grad(losses.sum(), list(leaves.values()))
    return losses.detach(), dict(zip(names, gradients, strict=True))


def _difference(samples: Sequence[_Sample], losses: Tensor, gradients: dict[str, Tensor]) -> str | None:
    for row, sample in enumerate(samples):
        norm = torch.linalg.vector_norm(torch.stack([each.norm() for each in sample.gradients.values()]))
        off = [float((gradients[name][row] - each).norm()) for name, each in sample.gradients.items()]
        if max(off) > TOLERANCE * float(norm) or not _is_close(losses[row], sample.loss):
            return (
                "the loss depends on more than the model's parameters and the batch: trials of two seeds have other "
                "gradients in one stack than alone"
            )
    return None


def _is_close(loss: Tensor, alone: Tensor) -> bool:
    return torch.allclose(loss, alone, rtol=TOLERANCE, equal_nan=True)


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    operator = _OPERATOR.search(text)
    if operator is not None:
        return f"the loss uses {operator[0]}, which torch cannot batch over trials"
    if "random operation" in text:
        return "the loss draws random numbers (dropout?), which no stack draws as each trial would"
    if ".item()" in text or "data-dependent control flow" in text:
        return "the loss uses .item() or branches on a tensor's value (aten::_local_scalar_dense)"
    return f"torch cannot batch the loss over trials: {text[:200] or type(error).__name__}"
