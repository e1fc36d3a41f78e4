"""That a step never reads a tensor on the host, where an accelerator would have to be waited for.

Tensors on `meta` have no values, so reading one raises; all else of a step runs on them as on an accelerator.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spectune.optimizers import Muon, PolarGrad, Root, SpectralDescent
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.polar.solvers import SOLVERS

SHAPES = [(8, 8), (16, 4), (4, 16), (8, 8), (7, 5)]
STEPS = {
    **{f"Muon {solver}": (Muon, {"solver": solver}) for solver in SOLVERS if solver != "svd"},
    "Muon, tensor lr": (Muon, {"lr": torch.tensor(0.1)}),
    "Muon, no Nesterov": (Muon, {"nesterov": False, "maximize": True}),
    "PolarGrad qdwh": (PolarGrad, {"solver": "qdwh"}),
    "PolarGrad polar first": (PolarGrad, {"solver": "zolo_pd", "polar_first": True}),
    "Root exact": (Root, {"quantile": "exact"}),
    "Root sampled": (Root, {"quantile": "sampled"}),
    "spectral descent": (SpectralDescent, {"solver": "minimax"}),
}


def parameters(device):
    params = [nn.Parameter(torch.ones(shape, device=device)) for shape in SHAPES]
    for parameter in params:
        parameter.grad = torch.ones_like(parameter)
    return params


def test_the_check_rejects_a_read():
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        torch.ones(3, device="meta").sum().item()
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        bool(torch.ones((), device="meta") > 0)


@pytest.mark.parametrize("merge", ["equal", "transposed", "padded"])
@pytest.mark.parametrize(("kind", "options"), STEPS.values(), ids=STEPS)
def test_a_step_reads_nothing_on_the_host(kind, options, merge):
    optimizer = type("Merging", (kind,), {"merge": merge})(parameters("meta"), capturable=True, **options)
    for _ in range(2):
        optimizer.step()


@pytest.mark.parametrize("solver", [solver for solver in SOLVERS if solver != "svd"])
def test_a_polar_factor_reads_nothing_on_the_host(solver):
    assert polar_factor(torch.ones(3, 6, 4, device="meta"), solver=solver).shape == (3, 6, 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("kind", "options"), STEPS.values(), ids=STEPS)
def test_on_cuda_a_step_waits_for_nothing(kind, options):
    optimizer = kind(parameters("cuda"), capturable=True, **options)
    optimizer.step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
