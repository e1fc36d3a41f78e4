"""The write that takes one pass does what the one line of `spectral.apply_update` says."""

from __future__ import annotations

import pytest
import torch

from spectune.optimizers import Muon, Root
from spectune.optimizers.rules.spectral import apply_update
from spectune.optimizers.stages.parameter_updates import write_

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
BOUNDS = {torch.float64: 1e-14, torch.float32: 4e-7, torch.bfloat16: 4e-2, torch.float16: 4e-3}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 9), (64, 256)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize("lies", ["as it is", "transposed"])
@pytest.mark.parametrize("lr", [0.125, torch.tensor([0.125])])
def test_a_write_decays_and_steps(dtype, shape, weight_decay, lies, lr):
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]
    if lies == "transposed":
        parameters = [parameter.mT.contiguous().mT for parameter in parameters]
    before = torch.stack(parameters).double()
    for direction_dtype in {dtype, torch.bfloat16}:
        directions = torch.randn(3, *shape, generator=generator).to(direction_dtype)
        kept = directions.clone()
        stepped = [parameter.clone() for parameter in parameters]
        write_(stepped, directions, lr=lr, weight_decay=weight_decay, factor=2.0)
        expected = apply_update(before, 2 * directions.double(), lr=0.125, weight_decay=weight_decay)
        torch.testing.assert_close(torch.stack(stepped).double(), expected, rtol=0, atol=BOUNDS[dtype])
        assert torch.equal(directions, kept)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compute_dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize("optimizer_type", [Muon, Root])
def test_a_step_keeps_a_matrix_that_is_not_finite_to_itself_and_decays_one_without_gradient(
    optimizer_type, compute_dtype, dtype
):
    """Torch's fused kernel leaves the decay out in half precisions, which an earlier write took for every dtype."""
    ones = [torch.nn.Parameter(torch.ones(6, 10, dtype=dtype)) for _ in range(3)]
    generator = torch.Generator().manual_seed(0)
    for parameter in ones:
        parameter.grad = torch.randn(6, 10, generator=generator).to(dtype)
    assert ones[1].grad is not None
    assert ones[2].grad is not None
    ones[1].grad[0, 0] = torch.inf
    ones[2].grad.zero_()
    optimizer_type(ones, lr=0.1, weight_decay=0.5, compute_dtype=compute_dtype).step()
    assert ones[0].isfinite().all()
    assert not ones[1].isfinite().any()
    torch.testing.assert_close(ones[2].detach(), torch.full((6, 10), 0.95, dtype=dtype), rtol=0, atol=BOUNDS[dtype] / 8)
