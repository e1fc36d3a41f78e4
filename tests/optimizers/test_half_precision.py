"""Half precision: a number is never rounded to the dtype of what it multiplies, in lists as in loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spectune.optimizers import AdamWRule, Muon, PolarGrad, Root, SpectralDescent, apply_update
from spectune.optimizers.foreach import multiply_
from tests.optimizers.references import gaussian

CLASSES = [Muon, PolarGrad, Root, SpectralDescent]
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_class = pytest.mark.parametrize("kind", CLASSES)
SHAPES = [(64, 48), (64, 48), (7, 5)]


def parameters(dtype, shapes=SHAPES):
    return [nn.Parameter(gaussian(*shape, seed=seed).to(dtype)) for seed, shape in enumerate(shapes)]


def test_torchs_list_rounds_a_number_and_its_tensor_does_not():
    values = gaussian(64, 48).to(torch.bfloat16)
    as_list, as_loop = [values.clone()], values.clone().mul_(1 - 0.02 * 0.1)
    torch._foreach_mul_(as_list, 1 - 0.02 * 0.1)
    assert not torch.equal(as_list[0], as_loop)  # if torch mends it, `foreach` may go
    ours = [values.clone()]
    multiply_(ours, 1 - 0.02 * 0.1)
    assert torch.equal(ours[0], as_loop)


@every_dtype
@every_class
@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize("lr", [0.02, torch.tensor(0.02), torch.tensor([0.02], dtype=torch.float64)], ids=str)
@pytest.mark.parametrize("rest", [False, True])
def test_decay_is_torchs_bit_for_bit(kind, dtype, foreach, lr, rest):
    params, expected = parameters(dtype), parameters(dtype)
    group = {"params": params, "algorithm": "adamw"} if rest else {"params": params}
    if rest and isinstance(lr, torch.Tensor):
        foreach = None  # torch's AdamW takes no list with a tensor for a rate
    if rest:
        group["eps"] = 1e-4  # 1e-8 is zero in float16, and torch's AdamW then divides zero by zero
    optimizer = kind([group], lr=lr, weight_decay=0.1, foreach=foreach)
    rate = lr.reshape(()) if isinstance(lr, torch.Tensor) else lr
    for _ in range(5):
        for parameter in params:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for parameter in expected:
            with torch.no_grad():
                parameter.mul_(1 - rate * 0.1)
    # In float32 and float64 a number goes through torch's fused kernel, x - lr (wd x), which may round to the neighbor.
    takes_fused = dtype.itemsize > 2 and not rest and not isinstance(lr, torch.Tensor)
    bound = 5 * torch.finfo(dtype).eps if takes_fused else 0
    for one, other in zip(params, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=bound, atol=0)


@every_dtype
@every_class
def test_a_list_and_a_loop_take_the_same_steps(kind, dtype):
    together, alone = parameters(dtype), parameters(dtype)
    first, second = kind(together, lr=0.02, foreach=True), kind(alone, lr=0.02, foreach=False)
    for step in range(3):
        for seed, (one, other) in enumerate(zip(together, alone, strict=True)):
            one.grad = gaussian(*one.shape, seed=10 * step + seed).to(dtype)
            other.grad = one.grad.clone()
        first.step()
        second.step()
    bound = 8 * torch.finfo(dtype).eps
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=bound, atol=bound)
    for one, other in zip(first.state.values(), second.state.values(), strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


@every_dtype
@pytest.mark.parametrize("kind", [Muon, Root])
@pytest.mark.parametrize("nesterov", [True, False])
def test_momenta_are_those_of_the_functional_stages_bit_for_bit(kind, dtype, nesterov):
    params = parameters(dtype)
    optimizer = kind(params, nesterov=nesterov)
    rule, group = optimizer._rule(optimizer.param_groups[0]), optimizer.param_groups[0]
    states = [rule.initial_state(parameter) for parameter in params]
    for step in range(4):
        for seed, parameter in enumerate(params):
            parameter.grad = gaussian(*parameter.shape, seed=10 * step + seed).to(dtype)
            _, states[seed] = rule.update(parameter.grad, states[seed], group)
        optimizer.step()
    for parameter, state in zip(params, states, strict=True):
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], state["momentum_buffer"])


@every_dtype
@every_class
def test_a_step_equals_the_functional_stages_in_every_dtype(kind, dtype):
    [parameter] = parameters(dtype, [(12, 20)])
    # Muon iterates in bfloat16 by default, whose rounding of momenta depends on how they are stacked.
    exact = {"compute_dtype": "float32"} if kind is Muon and dtype == torch.float32 else {}
    optimizer = kind([parameter], lr=0.02, weight_decay=0.1, **exact)
    rule, group = optimizer._rule(optimizer.param_groups[0]), optimizer.param_groups[0]
    expected, state = parameter.detach().clone(), rule.initial_state(parameter)
    for step in range(4):
        parameter.grad = gaussian(12, 20, seed=step).to(dtype)
        optimizer.step()
        update, state = rule.update(parameter.grad, state, group)
        expected = apply_update(expected, update, lr=0.02, weight_decay=0.1)
        assert expected.dtype == dtype
        bound = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(parameter.detach(), expected, rtol=bound, atol=bound)


@every_dtype
@pytest.mark.parametrize("foreach", [None, True, False])
def test_the_rest_follows_torchs_loop_bit_for_bit_in_every_dtype(dtype, foreach):
    ours, theirs = parameters(dtype), parameters(dtype)
    optimizer = Muon([{"params": ours, "algorithm": "adamw", "lr": 0.02}], foreach=foreach, weight_decay=0.1)
    reference = torch.optim.AdamW(theirs, lr=0.02, betas=(0.9, 0.95), weight_decay=0.1, foreach=False)
    for step in range(6):
        for seed, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            one.grad = gaussian(*one.shape, seed=10 * step + seed).to(dtype)
            other.grad = one.grad.clone()
        optimizer.step()
        reference.step()
    exact = dtype.itemsize == 2 or foreach is not True
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0 if exact else 1e-6)


@every_dtype
@pytest.mark.parametrize("as_tensor", [False, True])
def test_adamws_functional_stage_follows_torch_in_every_dtype(dtype, as_tensor):
    [parameter] = parameters(dtype, [(6, 5)])
    betas, eps = (0.9, 0.95), 1e-3  # in float16 smaller ones leave the range of normal numbers, in torch as well
    reference = torch.optim.AdamW([parameter], lr=0.02, betas=betas, eps=eps, weight_decay=0.1, foreach=False)
    rule, rate = AdamWRule(), torch.tensor(0.02, dtype=torch.float64)
    group = {"betas": tuple(torch.tensor(each, dtype=torch.float64) for each in betas) if as_tensor else betas}
    expected, state = parameter.detach().clone(), rule.initial_state(parameter)
    for step in range(6):
        parameter.grad = gaussian(6, 5, seed=step).to(dtype)
        reference.step()
        update, state = rule.update(parameter.grad, state, {**group, "eps": eps})
        expected = apply_update(expected, update, lr=rate if as_tensor else 0.02, weight_decay=0.1)
        assert (expected.dtype, update.dtype, state["exp_avg_sq"].dtype) == (dtype,) * 3
        bound = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(parameter.detach(), expected, rtol=bound, atol=bound)
