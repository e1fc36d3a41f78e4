"""Memory between the rows of a matrix changes no bit of what is computed there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spectune.optimizers.polar import half_products, quintic, quintic_memory
from spectune.optimizers.polar.coefficients import CLASSIC

SHAPES = [(1, 512, 512), (1, 512, 700), (1, 40, 600), (2, 512, 512), (1, 511, 513)]


def iterated(matrix: Tensor, *, steps: int, lends: bool) -> Tensor:
    rule = quintic.Quintic(triples=(CLASSIC,) * steps)
    return quintic.iterated(matrix, [steps] * len(matrix), rule, eps=1e-7, dtype=torch.bfloat16, lends=lends)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("lies_tall", [False, True])
@pytest.mark.parametrize("lends", [False, True])
def test_padded_rows_give_the_same_bits_as_one_block(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], steps: int, lies_tall: bool, lends: bool
) -> None:
    monkeypatch.setattr(half_products, "IS_NATIVE", True)  # padded on any processor
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    matrix = matrix.mT.contiguous().mT if lies_tall else matrix
    padded = iterated(matrix, steps=steps, lends=lends).clone()
    monkeypatch.setattr(quintic_memory, "PADDED_COLUMNS", 10**9)
    assert torch.equal(padded, iterated(matrix, steps=steps, lends=lends))


@pytest.mark.parametrize("lies_tall", [False, True])
def test_what_is_lent_lies_in_one_block(lies_tall: bool) -> None:
    matrix = torch.randn(1, 512, 600)
    lent = iterated(matrix.mT.contiguous().mT if lies_tall else matrix, steps=5, lends=True)
    assert (lent.mT if lies_tall else lent).is_contiguous()
