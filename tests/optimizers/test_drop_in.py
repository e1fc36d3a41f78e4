"""Drop-in means drop-in: arguments and kinds of values are torch's; shapes of every sort are taken or refused."""

from __future__ import annotations

import gc
import inspect
import weakref

import pytest
import torch
from torch import nn

from spectune.optimizers import Muon, PolarGrad, Root, SpectralDescent, build_optimizer, split
from spectune.optimizers.parameters.matrix_views import matrices_of
from tests.optimizers.references import gaussian

CLASSES = [Muon, PolarGrad, Root, SpectralDescent]
SPECTRAL = ["muon", "polargrad", "root", "spectral_descent"]
every_class = pytest.mark.parametrize("kind", CLASSES)


def matrix(rows=6, columns=4, seed=0):
    parameter = nn.Parameter(gaussian(rows, columns, seed=seed, dtype=torch.float32))
    parameter.grad = gaussian(rows, columns, seed=seed + 100, dtype=torch.float32)
    return parameter


def network():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model


def test_muon_takes_torchs_arguments_in_torchs_order_with_torchs_defaults():
    theirs = list(inspect.signature(torch.optim.Muon.__init__).parameters.values())
    ours = list(inspect.signature(Muon.__init__).parameters.values())[: len(theirs)]
    assert [(each.name, each.kind) for each in ours] == [(each.name, each.kind) for each in theirs]
    own = {each.name: each.default for each in ours}
    assert own.pop("ns_coefficients") is None  # the solver's own, which are torch's
    assert own == {each.name: each.default for each in theirs if each.name != "ns_coefficients"}


def test_positional_arguments_mean_what_they_mean_in_torch():
    arguments = (0.02, 0.3, 0.8, False, (2.0, -1.5, 0.5), 1e-5, 3, None)
    ours, theirs = matrix(), matrix()
    Muon([ours], *arguments, compute_dtype="bfloat16").step()
    torch.optim.Muon([theirs], *arguments).step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["adamw", "sgd", *SPECTRAL])
def test_an_optimizer_is_built_with_every_keyword_that_its_class_takes(name):
    rate = torch.tensor(0.5)
    options = {"lr": rate, "maximize": True, "differentiable": False}
    if name != "sgd":
        options["capturable"] = False
    if name == "adamw":
        options |= {"amsgrad": True, "fused": False}
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build_optimizer(model, name, foreach=None, **options)
    optimizer.step()
    assert all(group["maximize"] for group in optimizer.param_groups)
    assert optimizer.param_groups[0]["lr"] is rate
    rates = [group for group in optimizer.param_groups if isinstance(group["lr"], torch.Tensor)]
    assert all(group["initial_lr"] is not group["lr"] for group in rates)
    assert any((now > was).any() for now, was in zip(model.parameters(), before, strict=True))
    with pytest.raises(ValueError, match="unknown hyperparameter of"):
        build_optimizer(network(), name, maximise=True)


@pytest.mark.parametrize("name", SPECTRAL)
def test_a_built_optimizer_cannot_be_differentiated_through(name):
    with pytest.raises(ValueError, match="got differentiable=True"):
        build_optimizer(network(), name, differentiable=True)


@pytest.mark.parametrize("name", ["adamw", "sgd", *SPECTRAL])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_a_tensor_rate_is_checked_as_a_number_is(name, value):
    with pytest.raises(ValueError, match=f"lr .*: got {value}"):
        build_optimizer(network(), name, lr=torch.tensor(value, dtype=torch.float64))


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5),
        lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
        lambda optimizer: torch.optim.lr_scheduler.MultiplicativeLR(optimizer, lambda step: 0.8),
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3),
        lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer),
        lambda optimizer: torch.optim.lr_scheduler.PolynomialLR(optimizer, 5),
        lambda optimizer: torch.optim.lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, 2, cycle_momentum=False),
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, 10, cycle_momentum=False),
    ],
)
def test_every_schedule_moves_number_and_tensor_rates_alike(schedule, as_tensor):
    model, twin = network(), network()
    twin.load_state_dict(model.state_dict())
    optimizer = build_optimizer(model, "muon", lr=torch.tensor(0.1, dtype=torch.float64) if as_tensor else 0.1)
    other = build_optimizer(twin, "muon", lr=0.1)
    first, second = schedule(optimizer), schedule(other)
    for _ in range(5):
        optimizer.step()
        other.step()
        first.step()
        second.step()
        rates = [[float(group["lr"]) for group in each.param_groups] for each in (optimizer, other)]
        assert rates[0] == pytest.approx(rates[1])
    for one, another in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, another, rtol=0, atol=1e-5)


@every_class
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("foreach", [None, False])
def test_a_matrix_without_entries_is_passed_over(kind, shape, foreach):
    empty, full = nn.Parameter(torch.zeros(shape)), matrix()
    empty.grad = torch.zeros(shape)
    before = full.detach().clone()
    optimizer = kind([{"params": [empty]}, {"params": []}, {"params": [full]}], foreach=foreach)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert not torch.equal(full, before)


@every_class
def test_layouts_of_memory_do_not_change_a_step_and_expanded_ones_are_refused(kind):
    plain, turned, sliced = matrix(), matrix(), matrix()
    turned.data = turned.data.mT.contiguous().mT
    sliced.data = torch.cat([sliced.data, sliced.data], dim=1)[:, :4]
    for parameter in (plain, turned, sliced):
        kind([parameter], lr=0.1).step()
    torch.testing.assert_close(turned, plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(sliced, plain, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"is expanded.*got shape \(3, 4\) with strides \(1, 0\)"):
        kind([nn.Parameter(torch.ones(3, 1).expand(3, 4))])


class Mixture(nn.Module):
    """Experts beside a convolution."""

    def __init__(self):
        super().__init__()
        self.experts = nn.Parameter(gaussian(3, 8, 10, dtype=torch.float32))
        self.kernel = nn.Conv1d(4, 6, 3, bias=False)
        self.long_kernel = nn.Conv1d(4, 6, 9, bias=False)


def test_experts_are_a_stack_of_matrices_and_kernels_still_flatten():
    model = Mixture()
    parts = split(model, flatten=True, matrices=["experts"])
    assert "experts" in parts.report()
    assert "3 matrices of 8×10" in parts.report()
    assert "flattened to 6×12" in parts.report()
    assert "flattened to 6×36" in parts.report()
    optimizer, alone = Muon(parts.groups(), lr=0.1), [nn.Parameter(each.clone()) for each in model.experts.detach()]
    reference = Muon(alone, lr=0.1)
    for parameter in model.parameters():
        parameter.grad = gaussian(*parameter.shape, seed=7, dtype=torch.float32)
    for expert, gradient in zip(alone, model.experts.grad, strict=True):
        expert.grad = gradient.clone()
    optimizer.step()
    reference.step()
    torch.testing.assert_close(model.experts.detach(), torch.stack([each.detach() for each in alone]), rtol=0, atol=0)


def test_a_stack_that_flatten_would_make_one_matrix_must_be_said_to_be_one():
    experts = nn.Parameter(torch.ones(3, 8, 10))
    with pytest.raises(ValueError, match=r"stacked=True takes each matrix for itself.*got shape \(3, 8, 10\)"):
        Muon([{"params": [experts], "flatten": True}])
    with pytest.raises(ValueError, match="give either flatten or stacked"):
        Muon([{"params": [experts], "flatten": True, "stacked": True}])
    assert [each.shape for each in matrices_of({"stacked": True, "num_heads": 2}, experts)] == [(4, 10)] * 6
    assert [each.shape for each in matrices_of({"flatten": True, "stacked": False}, experts)] == [(3, 80)]
    Muon([{"params": [experts], "flatten": True, "stacked": False}])


@every_class
def test_hooks_are_called_as_torch_calls_them(kind):
    optimizer, calls = kind([matrix()]), []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before the step"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after the step"))
    optimizer.register_state_dict_pre_hook(lambda *_: calls.append("before the state"))
    optimizer.register_state_dict_post_hook(lambda *_: calls.append("after the state"))
    optimizer.register_load_state_dict_pre_hook(lambda *_: calls.append("before loading"))
    optimizer.register_load_state_dict_post_hook(lambda *_: calls.append("after loading"))
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    states = ["before the state", "after the state", "before loading", "after loading"]
    assert calls == ["before the step", "after the step", *states]


@every_class
def test_a_hook_may_make_a_state_of_another_form_loadable(kind):
    optimizer = kind([matrix()])
    optimizer.step()
    saved = optimizer.state_dict()
    saved["param_groups"][0]["solver"] = "qdwh of old"

    def rename(_, state_dict):
        state_dict["param_groups"][0]["solver"] = "qdwh"
        return state_dict

    optimizer.register_load_state_dict_pre_hook(rename)
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["solver"] == "qdwh"


@every_class
def test_the_profiler_shows_a_step_by_the_name_of_its_class(kind):
    optimizer = kind([matrix()])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimizer.step()
        optimizer.zero_grad()
    names = {event.key for event in profile.key_averages()}
    assert {f"Optimizer.step#{kind.__name__}.step", f"Optimizer.zero_grad#{kind.__name__}.zero_grad"} <= names


@every_class
def test_an_optimizer_is_freed_with_its_last_reference(kind):
    optimizer = kind([matrix()])
    optimizer.step()
    gc.collect()
    gc.disable()
    try:
        reference = weakref.ref(optimizer)
        del optimizer
        assert reference() is None
    finally:
        gc.enable()


@every_class
@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_are_set_to_none_or_to_zero(kind, set_to_none):
    parameter = matrix()
    kind([parameter]).zero_grad(set_to_none=set_to_none)
    assert parameter.grad is None if set_to_none else not parameter.grad.any()
