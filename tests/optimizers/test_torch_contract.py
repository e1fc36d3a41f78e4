"""What a script that used torch.optim relies on: the same path, checkpoints, scaling, schedules, compilation."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from spectune.optimizers import Muon, PolarGrad, Root, SpectralDescent
from spectune.optimizers.polar import half_products
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
    assert farthest(after(Muon, 50, **options), theirs) < 1e-3
    other = {"original": "match_rms_adamw", "match_rms_adamw": "original"}[adjust_lr_fn]
    assert farthest(after(Muon, 50, adjust_lr_fn=other, nesterov=nesterov), theirs) > 1e-3  # the bound can tell
    assert farthest(after(Muon, 50, adjust_lr_fn=adjust_lr_fn, nesterov=not nesterov), theirs) > 1e-3


@pytest.mark.parametrize("solver", ["newton_schulz", "svd", "qdwh", "minimax"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_muon_by_default_computes_in_bfloat16_as_torch_does_and_other_solvers_as_they_did(solver, dtype):
    asked = {"newton_schulz": "bfloat16"}.get(solver, "auto")
    found = []
    for options in ({}, {"compute_dtype": asked}, {"compute_dtype": "float32"}):
        [parameter] = params = [nn.Parameter(gaussian(8, 6, dtype=dtype))]
        optimizer = Muon(params, lr=0.1, solver=solver, **options)
        parameter.grad = gaussian(8, 6, seed=1, dtype=dtype)
        optimizer.step()
        found.append(parameter.detach())
    assert torch.equal(found[0], found[1])
    assert (
        torch.equal(found[0], found[2]) == (solver != "newton_schulz" and dtype != torch.float64)
        or dtype == torch.bfloat16
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(65, 33), (33, 65), (200, 200), (363, 362)])
@pytest.mark.parametrize("is_native", [True, False])
def test_muon_by_default_stays_beside_torch_muon_in_every_dtype_on_every_processor(
    dtype, shape, is_native, monkeypatch
):
    if not is_native:
        monkeypatch.setattr(half_products, "IS_NATIVE", False)
    places = []
    for kind in (Muon, torch.optim.Muon):
        params = [nn.Parameter((0.1 * gaussian(*shape, seed=7)).to(dtype)) for _ in range(2)]
        optimizer = kind(params)
        for step in range(6):
            for number, parameter in enumerate(params):
                parameter.grad = gaussian(*shape, seed=10 * step + number, dtype=dtype)
            optimizer.step()
        places.append([parameter.detach().double() for parameter in params])
    assert farthest(*places) < (4e-3 if dtype == torch.bfloat16 else 1e-3)  # 4e-3: one rounding of a weight near 0.5
    assert farthest(places[0], [torch.zeros(shape).double()] * 2) > 0.1


RESUME = """
import sys, torch
from spectune import optimizers
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
@every_class
def test_a_compiled_step_reads_a_tensor_learning_rate_each_time(kind):
    torch.compiler.reset()  # else what was compiled for one class counts against the next one's limit
    compiled, plain = parameters([(6, 4), (6, 4)]), parameters([(6, 4), (6, 4)])
    rate = torch.tensor(0.1)
    exact = {"compute_dtype": "float32"}  # in bfloat16 a compiled product rounds elsewhere
    optimizer, other = kind(compiled, lr=rate, **exact), kind(plain, lr=0.1, **exact)
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
def test_a_schedule_gives_what_setting_the_rate_by_hand_gives(kind):
    scheduled, by_hand = parameters([(6, 4)]), parameters([(6, 4)])
    vectors = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))]
    first, second = (
        kind([{"params": matrices}, {"params": [vector], "algorithm": "adamw", "lr": 0.01}], lr=0.1)
        for matrices, vector in zip((scheduled, by_hand), vectors, strict=True)
    )
    warmup = torch.optim.lr_scheduler.LinearLR(first, start_factor=0.5, total_iters=2)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(first, T_max=4)
    scheduler = torch.optim.lr_scheduler.SequentialLR(first, [warmup, decay], milestones=[2])
    factors = [0.5, 0.75, 1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]
    for step, factor in enumerate(factors):
        for group, rate in zip(second.param_groups, (0.1, 0.01), strict=True):
            group["lr"] = rate * factor
        give_gradients([*scheduled, vectors[0]], step)
        give_gradients([*by_hand, vectors[1]], step)
        first.step()
        scheduler.step()
        second.step()
        assert farthest([*scheduled, vectors[0]], [*by_hand, vectors[1]]) < 1e-6


@every_class
def test_an_infinite_gradient_of_one_parameter_skips_the_step_of_all(kind):
    """The scaler looks at the whole optimizer, matrices and AdamW's, and the state must not move either."""
    matrix, vector = parameters([(6, 4)])[0], nn.Parameter(torch.ones(3))
    optimizer = kind([{"params": [matrix]}, {"params": [vector], "algorithm": "adamw"}], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(matrix.square().sum() + vector.square().sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    before, state = [matrix.detach().clone(), vector.detach().clone()], copy.deepcopy(optimizer.state_dict()["state"])
    optimizer.zero_grad()
    scaler.scale(matrix.square().sum() + vector.square().sum()).backward()
    vector.grad[1] = torch.inf
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(matrix.detach(), before[0])
    assert torch.equal(vector.detach(), before[1])
    for number, entries in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, state[number][name]) for name, value in entries.items())


@every_class
def test_the_scaler_hands_over_unscaled_gradients(kind):
    scaled, plain = parameters([(6, 4)]), parameters([(6, 4)])
    optimizer, other = kind(scaled, lr=0.1), kind(plain, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((scaled[0] - 1).square().sum()).backward()
    scaler.step(optimizer)
    (plain[0] - 1).square().sum().backward()
    other.step()
    assert farthest(scaled, plain) == 0


@every_class
def test_a_closure_is_called_once_a_step_before_it(kind):
    [parameter] = parameters([(4, 4)])
    optimizer, calls = kind([parameter], lr=0.1), []

    def closure():
        calls.append(parameter.detach().clone())
        optimizer.zero_grad()
        loss = (parameter - 1).square().sum()
        loss.backward()
        return loss

    before = parameter.detach().clone()
    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert len(calls) == 3
    assert torch.equal(calls[0], before)
    assert losses[0] > losses[1] > losses[2]


@every_class
def test_copies_keep_names_views_and_groups_added_later(kind):
    model = nn.Sequential(nn.Conv1d(2, 4, 3, bias=False), nn.Linear(3, 6, bias=False), nn.LayerNorm(3))
    optimizer = kind([{"params": [("0.weight", model[0].weight)], "flatten": True}], lr=0.1)
    optimizer.add_param_group({"params": [("1.weight", model[1].weight)], "split_sizes": [4, 2], "lr": 0.2})
    optimizer.add_param_group({"params": list(model[2].named_parameters()), "algorithm": "adamw"})
    give_gradients(list(model.parameters()), 0)
    optimizer.step()
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert [group["param_names"] for group in twin.param_groups] == [["0.weight"], ["1.weight"], ["weight", "bias"]]
        assert twin.param_groups[0]["flatten"]
        assert (twin.param_groups[1]["split_sizes"], twin.param_groups[1]["lr"]) == ([4, 2], 0.2)
        others = [parameter for group in twin.param_groups for parameter in group["params"]]
        give_gradients(others, 1)
        twin.step()
    give_gradients(list(model.parameters()), 1)
    optimizer.step()
    assert farthest(model.parameters(), others) == 0
