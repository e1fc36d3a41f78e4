"""What a script that used torch.optim relies on: the same path, checkpoints, scaling, compilation, refusals."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from optimizers import Muon, PolarGrad, Root, SpectralDescent
from tests.optimizers.references import gaussian

CLASSES = [Muon, PolarGrad, Root, SpectralDescent]
ODD_SHAPES = [(7, 5), (5, 7), (1, 9), (9, 1), (7, 5), (13, 13), (33, 3), (1, 1)]
every_class = pytest.mark.parametrize("kind", CLASSES)


def parameters(shapes):
    return [nn.Parameter(0.1 * gaussian(*shape, seed=seed, dtype=torch.float32)) for seed, shape in enumerate(shapes)]


def give_gradients(params, step):
    for index, parameter in enumerate(params):
        noise = gaussian(*parameter.shape, seed=1000 * step + index, dtype=torch.float32)
        parameter.grad = noise + parameter.detach()


def farthest(first, second):
    return max((one - other).abs().max().item() for one, other in zip(first, second, strict=True))


def after(kind, steps, **options):
    params = parameters(ODD_SHAPES)
    optimizer = kind(params, lr=1e-3, **options)
    for step in range(steps):
        give_gradients(params, step)
        optimizer.step()
    return params


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust_lr_fn", ["original", "match_rms_adamw"])
def test_muon_and_torch_muon_are_at_the_same_place_after_fifty_steps_on_odd_shapes(adjust_lr_fn, nesterov):
    options = {"adjust_lr_fn": adjust_lr_fn, "nesterov": nesterov}
    theirs = after(torch.optim.Muon, 50, **options)
    assert farthest(after(Muon, 50, compute_dtype="bfloat16", **options), theirs) < 1e-3
    other = {"original": "match_rms_adamw", "match_rms_adamw": "original"}[adjust_lr_fn]
    assert farthest(after(Muon, 50, adjust_lr_fn=other, nesterov=nesterov), theirs) > 1e-3  # the bound can tell
    assert farthest(after(Muon, 50, adjust_lr_fn=adjust_lr_fn, nesterov=not nesterov), theirs) > 1e-3


RESUME = """
import sys, torch
import optimizers
from torch import nn
saved = torch.load(sys.argv[1], weights_only=True)
params = [nn.Parameter(value) for value in saved["params"]]
optimizer = getattr(optimizers, sys.argv[2])([{"params": params[:-1]}, {"params": params[-1:], "algorithm": "adamw"}])
optimizer.load_state_dict(state_dict=saved["optimizer"])
for parameter, gradient in zip(params, saved["gradients"]):
    parameter.grad = gradient
optimizer.step()
torch.save([parameter.detach() for parameter in params], sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Muon, Root])
def test_a_checkpoint_goes_on_in_a_fresh_process_that_loads_weights_only(kind, tmp_path):
    params = parameters([(7, 5), (5, 7), (6,)])
    groups = [{"params": params[:-1]}, {"params": params[-1:], "algorithm": "adamw"}]
    optimizer = kind(groups, lr=0.01, momentum=0.8, weight_decay=0.03)
    for step in range(3):
        give_gradients(params, step)
        optimizer.step()
    give_gradients(params, 3)
    saved = {
        "params": [parameter.detach() for parameter in params],
        "gradients": [parameter.grad for parameter in params],
        "optimizer": optimizer.state_dict(),
    }
    path = tmp_path / "checkpoint.pt"
    torch.save(saved, path)
    subprocess.run([sys.executable, "-c", RESUME, str(path), kind.__name__], check=True, timeout=120)
    optimizer.step()
    for resumed, here in zip(torch.load(path, weights_only=True), params, strict=True):
        assert torch.equal(resumed, here.detach())


@every_class
def test_a_gradient_scaler_skips_the_step_where_it_found_an_infinite_gradient(kind):
    [parameter] = params = parameters([(6, 4)])
    optimizer, scaler = kind(params, lr=0.1), torch.amp.GradScaler("cpu", init_scale=4.0)
    for spoil in (False, True, False):
        before, scale = parameter.detach().clone(), scaler.get_scale()
        optimizer.zero_grad()
        scaler.scale((parameter - 1).square().sum()).backward()
        if spoil:
            parameter.grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(parameter.detach(), before) == spoil
        assert (scaler.get_scale() < scale) == spoil
        assert parameter.isfinite().all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_step_reads_a_tensor_learning_rate_each_time():
    compiled, plain = parameters([(6, 4), (6, 4)]), parameters([(6, 4), (6, 4)])
    rate = torch.tensor(0.1)
    optimizer, other = Muon(compiled, lr=rate), Muon(plain, lr=0.1)
    step = torch.compile(optimizer.step, backend="aot_eager")
    for number, value in enumerate([0.1, 0.02, 0.3]):
        rate.fill_(value)
        other.param_groups[0]["lr"] = value
        give_gradients(compiled, number)
        give_gradients(plain, number)
        step()
        other.step()
        assert farthest(compiled, plain) < 1e-5


@every_class
def test_a_refusal_names_the_parameter_its_value_and_what_is_allowed(kind):
    vector, whole = (
        nn.Parameter(torch.zeros(3)),
        nn.Parameter(torch.zeros(2, 2, dtype=torch.int64), requires_grad=False),
    )
    with pytest.raises(ValueError, match=r'block.bias is no matrix, which only groups.*"adamw".*got shape \(3,\)'):
        kind([("block.bias", vector)])
    with pytest.raises(ValueError, match=r"parameter 1 of its group is no matrix.*got shape \(3,\)"):
        kind([*parameters([(2, 2)]), vector])
    with pytest.raises(ValueError, match=r"table is not real floating point.*got torch.int64"):
        kind([("table", whole)])
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = kind(list(embedding.named_parameters()))
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"weight has a sparse gradient, only dense.*got one of shape \(5, 3\)"):
        optimizer.step()
