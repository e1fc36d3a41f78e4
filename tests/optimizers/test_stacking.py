"""Directions shared between shapes against matrices taken alone, and momenta in place against the functional ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from spectune.optimizers import Muon, PolarGrad, Root, SpectralDescent
from spectune.optimizers.rules.muon import MuonRule
from spectune.optimizers.rules.polargrad import PolarGradRule
from spectune.optimizers.rules.root import RootRule
from spectune.optimizers.stacking import MAX_PADDING, MERGES, batches, merged, parted, wide_shape
from spectune.optimizers.stages.momentum import (
    STACKED_UP_TO,
    average,
    average_,
    average_into,
    heavy_ball,
    heavy_ball_,
    heavy_ball_into,
)
from tests.optimizers.references import gaussian

KINDS = {
    "muon": (Muon, {"compute_dtype": "auto"}),  # its default rounds to bfloat16, in an order of its own
    "muon rms_to_rms": (Muon, {"adjust_lr_fn": "rms_to_rms", "solver": "minimax"}),
    "muon adanewton": (Muon, {"solver": "adanewton"}),
    "muon auto": (Muon, {"solver": "auto", "nesterov": False}),
    "muon qdwh": (Muon, {"solver": "qdwh"}),
    "polargrad": (PolarGrad, {}),
    "polargrad polar first": (PolarGrad, {"polar_first": True, "solver": "polar_express"}),
    "root": (Root, {}),
    "spectral descent": (SpectralDescent, {}),
}
every_kind = pytest.mark.parametrize("kind", list(KINDS))
shape_lists = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=7)


def trained(kind, shapes, *, merge, foreach=None, order=None, dtype=torch.float64):
    """Give the matrices after three steps."""
    rule_class, options = KINDS[kind]
    params = [nn.Parameter(gaussian(*shape, seed=place, dtype=dtype)) for place, shape in enumerate(shapes)]
    own = type("Merging", (rule_class,), {"merge_on_cpu": merge})
    ordered = params if order is None else [params[place] for place in order]
    optimizer = own(ordered, foreach=foreach, lr=0.1, weight_decay=0.1, **options)
    for step in range(3):
        for place, parameter in enumerate(params):
            parameter.grad = gaussian(*parameter.shape, seed=100 * step + place, dtype=dtype)
        optimizer.step()
    return [parameter.detach() for parameter in params]


@every_kind
@settings(max_examples=8, deadline=None)
@given(shapes=shape_lists, seed=st.integers(0, 9))
@example(shapes=[(1, 2), (2, 1)], seed=0)  # two stacks in one batch
def test_no_merge_and_no_order_changes_a_result(kind, shapes, seed):
    alone = trained(kind, shapes, merge="equal", foreach=False)
    order = torch.randperm(len(shapes), generator=torch.Generator().manual_seed(seed)).tolist()
    for merge in MERGES:
        for together in (trained(kind, shapes, merge=merge), trained(kind, shapes, merge=merge, order=order)):
            for one, other in zip(together, alone, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_the_comparison_of_merges_rejects_a_scale_of_the_padded_shape():
    shapes = [(6, 6), (6, 5)]
    _, narrow = trained("muon rms_to_rms", shapes, merge="padded")
    wrong = trained("muon rms_to_rms", [(6, 6), (6, 6)], merge="equal")[1][:, :5]
    with pytest.raises(AssertionError):
        torch.testing.assert_close(narrow, wrong, rtol=0, atol=1e-9)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("place", [0, 3])
def test_a_non_finite_gradient_stays_with_its_matrix_in_every_merge(merge, place):
    params = [nn.Parameter(gaussian(*shape)) for shape in [(6, 4), (4, 6), (5, 6), (6, 6)]]
    for parameter in params:
        parameter.grad = gaussian(*parameter.shape, seed=1)
    params[place].grad[0, 0] = torch.nan
    type("Merging", (Muon,), {"merge_on_cpu": merge})(params).step()
    assert [bool(parameter.isfinite().all()) for parameter in params] == [other != place for other in range(4)]
    assert not params[place].isfinite().any()


@settings(max_examples=40, deadline=None)
@given(shapes=shape_lists, merge=st.sampled_from(MERGES), cap=st.sampled_from([0, 100, 10**6]))
def test_every_matrix_is_in_one_batch_below_the_cap_and_padded_no_more_than_allowed(shapes, merge, cap):
    matrices = [torch.zeros(shape) for shape in shapes]
    seen = []
    for batch in batches(matrices, merge=merge, cap=cap):
        members = [matrix for stack in batch for matrix in stack]
        rows, columns = wide_shape([stack[0][None] for stack in batch])
        assert len(members) == 1 or len(members) * rows * columns * 4 <= cap
        for stack in batch:
            assert {tuple(matrix.shape) for matrix in stack} == {tuple(stack[0].shape)}
            assert rows * columns <= (MAX_PADDING if merge == "padded" else 1) * stack[0].numel()
        assert merge != "equal" or len(batch) == 1
        seen += [id(matrix) for matrix in members]
    assert sorted(seen) == sorted(map(id, matrices))


def test_matrices_of_two_dtypes_are_never_stacked():
    matrices = [torch.zeros(3, 3), torch.zeros(3, 3, dtype=torch.bfloat16)]
    assert len(list(batches(matrices, merge="padded", cap=10**6))) == 2


def test_what_is_merged_comes_back_and_all_around_it_is_zero():
    stacks = [gaussian(2, 5, 3), gaussian(1, 3, 6), gaussian(3, 2, 6)]
    batch = merged(stacks, torch.full((6, 3, 6), torch.nan, dtype=torch.float64))
    for part, stack in zip(parted(batch, stacks), stacks, strict=True):
        assert torch.equal(part, stack)
    assert torch.isclose(batch.square().sum(), sum(stack.square().sum() for stack in stacks))


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(5, 7), (65, 65)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_average_in_place_is_the_functional_one(nesterov, shape, dtype):
    assert 5 * 7 <= STACKED_UP_TO < 65 * 65
    buffers = [gaussian(*shape, seed=seed, dtype=dtype) for seed in range(3)]
    gradients = [gaussian(*shape, seed=10 + seed, dtype=dtype) for seed in range(3)]
    expected = [
        average(buffer, gradient, momentum=0.9, nesterov=nesterov)
        for buffer, gradient in zip(buffers, gradients, strict=True)
    ]
    before, followed = [gradient.clone() for gradient in gradients], torch.empty(3, *shape, dtype=dtype)
    untouched = [buffer.clone() for buffer in buffers]
    average_into(buffers, gradients, momentum=0.9, nesterov=nesterov, followed=followed)
    assert all(map(torch.equal, buffers, untouched))
    average_(buffers, gradients, momentum=0.9)
    torch.testing.assert_close(buffers, [buffer for buffer, _ in expected], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(followed, torch.stack([each for _, each in expected]), rtol=1e-6, atol=1e-7)
    assert all(map(torch.equal, gradients, before))


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(5, 7), (65, 65)])
def test_the_heavy_ball_in_place_is_the_functional_one_bit_for_bit(nesterov, shape):
    buffers = [gaussian(*shape, seed=seed) for seed in range(3)]
    gradients = [gaussian(*shape, seed=10 + seed) for seed in range(3)]
    expected = [
        heavy_ball(buffer, gradient, momentum=0.9, nesterov=nesterov)
        for buffer, gradient in zip(buffers, gradients, strict=True)
    ]
    followed = torch.empty(3, *shape, dtype=torch.float64)
    untouched = [buffer.clone() for buffer in buffers]
    heavy_ball_into(buffers, gradients, momentum=0.9, nesterov=nesterov, followed=followed)
    assert all(map(torch.equal, buffers, untouched))
    heavy_ball_(buffers, gradients, momentum=0.9)
    assert all(map(torch.equal, buffers, [buffer for buffer, _ in expected]))
    assert all(map(torch.equal, followed, [each for _, each in expected]))


def test_a_rule_with_an_update_of_its_own_is_not_taken_apart():
    assert MuonRule().is_staged
    assert PolarGradRule(polar_first=True).is_staged
    assert RootRule().is_staged
    assert not RootRule(coefficients="online").is_staged


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_one_optimizer_leaves_in_kept_memory_is_not_seen_by_another(dtype):
    shapes = [(6, 6), (6, 6), (4, 8)]
    first = trained("muon", shapes, merge="transposed", dtype=dtype)
    trained("polargrad polar first", [(9, 9)] * 4, merge="transposed", dtype=dtype)
    for one, other in zip(trained("muon", shapes, merge="transposed", dtype=dtype), first, strict=True):
        assert torch.equal(one, other)
