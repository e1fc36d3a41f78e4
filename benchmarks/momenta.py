"""Momenta of a small language model in training: the matrices that a polar solver really meets.

The model is `trainers`' language_model on Python's own sources, trained by `Muon` with its defaults at lr 0.02. Momenta
are the optimizer's own buffers, copied at a few steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectune.optimizers import Muon, build_optimizer
from spectune.trainers.tasks.language_model import LanguageModel

RECORDED_AT = (10, 30, 60)


def recorded_momenta(*, width: int = 128, seed: int = 0) -> dict[str, list[Tensor]]:
    """Train 60 steps on the CPU and give the momenta, float32, by what the matrix is for."""
    task = LanguageModel(width=width, depth=2, heads=4, context=64, batch_size=8)
    model = task.build(torch.Generator().manual_seed(seed))
    optimizer = build_optimizer(model, "muon", lr=0.02, compute_dtype="auto")
    assert isinstance(optimizer, Muon)
    momenta: dict[str, list[Tensor]] = {"momenta attention": [], "momenta feed-forward": []}
    for step in range(1, max(RECORDED_AT) + 1):
        optimizer.zero_grad()
        task.loss(model, task.batch(step, seed)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step in RECORDED_AT:
            for name, parameter in model.named_parameters():
                buffer = optimizer.state[parameter].get("momentum_buffer")
                if buffer is not None:
                    kind = "momenta attention" if ".attention." in name else "momenta feed-forward"
                    momenta[kind].append(buffer.clone())
    return momenta
