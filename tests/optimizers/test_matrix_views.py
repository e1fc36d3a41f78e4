"""Parameters that stand for matrices: flattened convolutions, fused projections in blocks."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spectune.optimizers import Muon, PolarGrad, Root, SpectralDescent
from spectune.optimizers.parameters.matrix_views import matrices_of
from spectune.optimizers.rules.calibration import record_momenta
from tests.optimizers.references import gaussian

RULES = {
    "muon": (Muon, {}),
    "polargrad": (PolarGrad, {}),
    "polargrad polar first": (PolarGrad, {"polar_first": True}),
    "root": (Root, {}),
    "root online": (Root, {"coefficients": "online", "refit_every": 2}),
    "spectral descent": (SpectralDescent, {}),
}
every_rule = pytest.mark.parametrize(("kind", "options"), list(RULES.values()), ids=list(RULES))


def parameter(*shape, seed=0):
    return nn.Parameter(0.1 * gaussian(*shape, seed=seed, dtype=torch.float32))


def train(optimizer, gradients, *, steps=4):
    """Take steps with gradients that depend on the step and on where the parameter is; `gradients` by parameter."""
    for step in range(steps):
        for each, noise in gradients.items():
            each.grad = (1 + step) * noise + each.detach()
        optimizer.step()


@every_rule
def test_a_flattened_convolution_equals_the_reshaped_matrix_bit_for_bit(kind, options):
    convolution, noise = parameter(8, 3, 2, 2), gaussian(8, 3, 2, 2, seed=1, dtype=torch.float32)
    matrix = nn.Parameter(convolution.detach().reshape(8, 12).clone())
    viewed = kind([{"params": [convolution], "flatten": True}], **options)
    plain = kind([matrix], **options)
    train(viewed, {convolution: noise})
    train(plain, {matrix: noise.reshape(8, 12)})
    assert torch.equal(convolution.detach().reshape(8, 12), matrix.detach())
    for name, value in plain.state[matrix].items():
        assert torch.equal(viewed.state[convolution][name].reshape(value.shape), value)


@every_rule
@pytest.mark.parametrize(
    ("view", "sizes"), [({"split_sizes": [8, 4, 4]}, [8, 4, 4]), ({"num_heads": 4}, [4, 4, 4, 4])], ids=str
)
def test_a_fused_projection_equals_separate_matrices_bit_for_bit(kind, options, view, sizes):
    fused, noise = parameter(16, 8), gaussian(16, 8, seed=1, dtype=torch.float32)
    blocks = [nn.Parameter(block.clone()) for block in fused.detach().split(sizes)]
    viewed, separate, whole = kind([{"params": [fused], **view}], **options), kind(blocks, **options), parameter(16, 8)
    train(viewed, {fused: noise})
    train(separate, dict(zip(blocks, noise.split(sizes), strict=True)))
    train(kind([whole], **options), {whole: noise})
    assert torch.equal(fused.detach(), torch.cat([block.detach() for block in blocks]))
    assert not torch.allclose(fused, whole)  # so the blocks matter
    if "momentum_buffer" in viewed.state[fused]:
        buffers = [separate.state[block]["momentum_buffer"] for block in blocks]
        assert torch.equal(viewed.state[fused]["momentum_buffer"], torch.cat(buffers))


def test_both_together_are_a_grouped_convolution_as_a_matrix_for_each_group():
    convolution, noise = parameter(6, 2, 3), gaussian(6, 2, 3, seed=1, dtype=torch.float32)
    blocks = [nn.Parameter(block.reshape(3, 6).clone()) for block in convolution.detach().split(3)]
    train(Muon([{"params": [convolution], "flatten": True, "num_heads": 2}]), {convolution: noise})
    train(Muon(blocks), {block: part.reshape(3, 6) for block, part in zip(blocks, noise.split(3), strict=True)})
    assert torch.equal(convolution.detach().reshape(6, 6), torch.cat([block.detach() for block in blocks]))


@every_rule
def test_a_channels_last_convolution_is_written_in_place_and_goes_where_the_other_layout_goes(kind, options):
    usual, noise = parameter(8, 3, 2, 2), gaussian(8, 3, 2, 2, seed=1, dtype=torch.float32)
    turned = nn.Parameter(usual.detach().clone(memory_format=torch.channels_last))
    train(kind([{"params": [usual], "flatten": True}], **options), {usual: noise})
    optimizer = kind([{"params": [turned], "flatten": True}], **options)
    train(optimizer, {turned: noise.contiguous(memory_format=torch.channels_last)}, steps=2)
    saved = optimizer.state_dict()
    for state in saved["state"].values():  # as if it came from a model in the usual layout
        state.update({name: value.contiguous() for name, value in state.items()})
    optimizer.load_state_dict(saved)
    for step in (2, 3):
        turned.grad = (1 + step) * noise + turned.detach()  # and gradients in whichever layout
        turned.grad = turned.grad.contiguous()
        optimizer.step()
    torch.testing.assert_close(turned.detach(), usual.detach(), rtol=0, atol=2e-6)


@every_rule
def test_the_state_has_the_parameters_shape_and_a_checkpoint_goes_on(kind, options):
    def built():
        convolution, fused = parameter(4, 3, 2), parameter(6, 5, seed=1)
        groups = [{"params": [convolution], "flatten": True}, {"params": [fused], "split_sizes": [3, 2, 1]}]
        return kind(groups, **options), [convolution, fused]

    optimizer, params = built()
    noise = [gaussian(*each.shape, seed=7, dtype=torch.float32) for each in params]
    train(optimizer, dict(zip(params, noise, strict=True)), steps=3)
    for each in params:
        buffer = optimizer.state[each].get("momentum_buffer")
        assert buffer is None or buffer.shape == each.shape
    assert set(optimizer.state) <= set(params)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "params": params}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed, others = built()
    for other, value in zip(others, saved["params"], strict=True):
        other.data.copy_(value)
    resumed.load_state_dict(saved["optimizer"])
    train(optimizer, dict(zip(params, noise, strict=True)), steps=3)
    train(resumed, dict(zip(others, noise, strict=True)), steps=3)
    assert all(torch.equal(one, other) for one, other in zip(params, others, strict=True))


def test_what_has_no_gradient_is_left_alone_and_gradients_are_only_read():
    still, moved = parameter(4, 3, 2), parameter(4, 3, 2, seed=1)
    before, moved.grad = still.detach().clone(), gaussian(4, 3, 2, dtype=torch.float32)
    gradient = moved.grad.clone()
    optimizer = Root([{"params": [still, moved], "flatten": True}])
    optimizer.step()
    assert torch.equal(still.detach(), before)
    assert torch.equal(moved.grad, gradient)
    assert set(optimizer.state) == {moved}


def test_momenta_are_recorded_as_the_matrices_that_they_are():
    convolution, fused = parameter(4, 3, 2), parameter(6, 5)
    optimizer = Muon(
        [
            {"params": [("convolution", convolution)], "flatten": True},
            {"params": [("qkv", fused)], "split_sizes": [3, 3]},
        ]
    )
    train(optimizer, {convolution: torch.ones(4, 3, 2), fused: torch.ones(6, 5)})
    recorded = {name: tuple(momentum.shape) for name, momentum in record_momenta(optimizer).items()}
    assert recorded == {"convolution": (4, 6), "qkv[0]": (3, 5), "qkv[1]": (3, 5)}


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    order=st.permutations([1, 2, 3]),
    cuts=st.lists(st.integers(1, 3), min_size=1, max_size=4),
)
def test_the_matrices_hold_every_number_of_a_parameter_once_and_share_its_memory(shape, order, cuts):
    laid = gaussian(sum(cuts), *shape[1:], seed=1)
    layout = [0, *[dimension for dimension in order if dimension < laid.ndim]]
    back = [layout.index(dimension) for dimension in range(laid.ndim)]
    tensor = laid.permute(layout).contiguous().permute(back)
    matrices = matrices_of({"flatten": True, "split_sizes": cuts}, tensor)
    assert [matrix.shape[0] for matrix in matrices] == cuts
    assert all(matrix.ndim == 2 for matrix in matrices)
    assert sorted(torch.cat(matrices).flatten().tolist()) == sorted(tensor.flatten().tolist())
    for matrix in matrices:
        matrix.zero_()
    assert not tensor.any()


@pytest.mark.parametrize(
    ("shape", "view", "message"),
    [
        ((4, 3, 2), {}, r"w is no matrix, .* got shape \(4, 3, 2\)"),
        ((4,), {"flatten": True}, r"w is no matrix, .* got shape \(4,\)"),
        ((6, 5), {"flatten": 2}, r"flatten must be true or false: got 2"),
        ((6, 5), {"split_sizes": [3, 2]}, r"split_sizes of w .* add up to 6: got \[3, 2\]"),
        ((6, 5), {"split_sizes": [7, -1]}, r"got \[7, -1\]"),
        ((6, 5), {"split_sizes": 6}, r"got 6"),
        ((6, 5), {"num_heads": 4}, r"num_heads of w .* divides its 6 rows: got 4"),
        ((6, 5), {"num_heads": 0}, r"got 0"),
        ((6, 5), {"num_heads": True}, r"got True"),
        ((6, 5), {"num_heads": 2, "split_sizes": [3, 3]}, r"either split_sizes or num_heads: got \[3, 3\] and 2"),
    ],
)
@pytest.mark.parametrize("kind", [Muon, PolarGrad, Root, SpectralDescent])
def test_a_view_that_does_not_fit_is_refused_with_name_and_value(kind, shape, view, message):
    with pytest.raises(ValueError, match=message):
        kind([{"params": [("w", nn.Parameter(torch.zeros(shape)))], **view}])
