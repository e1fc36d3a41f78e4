"""The optimizer classes, as users of torch.optim meet them."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from spectune.optimizers import Muon, PolarGrad, Root, SpectralDescent, apply_update
from tests.optimizers.references import gaussian

CLASSES = {"muon": Muon, "polargrad": PolarGrad, "root": Root, "spectral descent": SpectralDescent}
SHAPES = [(8, 8), (8, 8), (16, 4), (4, 16), (8, 8)]
every_class = pytest.mark.parametrize("kind", list(CLASSES.values()), ids=list(CLASSES))


def parameters(shapes=SHAPES, dtype=torch.float32):
    return [nn.Parameter(0.1 * gaussian(*shape, seed=seed, dtype=dtype)) for seed, shape in enumerate(shapes)]


def train(optimizer, params, *, steps, first=0):
    """Follow a gradient that depends on where the parameters are, so that errors would grow."""
    for step in range(first, first + steps):
        for index, parameter in enumerate(params):
            noise = gaussian(*parameter.shape, seed=1000 * step + index, dtype=parameter.dtype)
            parameter.grad = noise + parameter.detach()
        optimizer.step()
    return params


def mixed(kind, dtype=torch.float64, **options):
    """Give an optimizer of matrices and of a vector and a table beside them, and all parameters."""
    matrices, rest = parameters(dtype=dtype), parameters([(5,), (7, 3)], dtype=dtype)
    return kind([{"params": matrices}, {"params": rest, "algorithm": "adamw"}], **options), matrices + rest


def assert_all_equal(first, second):
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": False},
        {"momentum": 0.8, "weight_decay": 0.0},
        {"adjust_lr_fn": "match_rms_adamw"},
        {"ns_steps": 3, "ns_coefficients": (2.0, -1.5, 0.5)},
        {"eps": 10.0},
    ],
    ids=str,
)
def test_muon_follows_torch_step_by_step(options):
    theirs, ours, exact = parameters(), parameters(), parameters()
    torch_muon = torch.optim.Muon(theirs, **options)
    muon = Muon(ours, compute_dtype="bfloat16", **options)
    in_float32 = Muon(exact, **options)
    for step in range(30):
        train(torch_muon, theirs, steps=1, first=step)
        train(muon, ours, steps=1, first=step)
        train(in_float32, exact, steps=1, first=step)
        for their, our, finer in zip(theirs, ours, exact, strict=True):
            torch.testing.assert_close(our, their, rtol=0, atol=1e-3)
            torch.testing.assert_close(finer, their, rtol=0, atol=1e-3)


def test_muon_and_torch_have_the_same_names_and_defaults():
    ours, theirs = Muon(parameters()).defaults, torch.optim.Muon(parameters()).defaults
    differing = {"ns_coefficients": (None, (3.4445, -4.775, 2.0315))}
    for name, value in theirs.items():
        assert (ours[name], value) == differing.get(name, (value, value))


def test_adamw_groups_follow_torch_adamw():
    ours, theirs = parameters([(5,), (7, 3), ()], dtype=torch.float64), parameters([(5,), (7, 3), ()], torch.float64)
    options = {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.05}
    train(Muon([{"params": ours, "algorithm": "adamw", **options}]), ours, steps=8)
    train(torch.optim.AdamW(theirs, **options), theirs, steps=8)
    assert_all_equal(ours, theirs)


@every_class
def test_a_step_equals_the_functional_stages(kind):
    [parameter] = parameters([(6, 9)], dtype=torch.float64)
    optimizer = kind([parameter], lr=0.03, weight_decay=0.2)
    rule, group = optimizer._rule(optimizer.param_groups[0]), optimizer.param_groups[0]
    expected, state = parameter.detach().clone(), rule.initial_state(parameter)
    for step in range(5):
        gradient = gaussian(6, 9, seed=step)
        parameter.grad = gradient.clone()
        optimizer.step()
        update, state = rule.update(gradient, state, group)
        expected = apply_update(expected, update, lr=0.03, weight_decay=0.2)
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-13)


@every_class
def test_stacking_order_and_caps_do_not_change_a_result(kind):
    stacked, alone, capped, turned = (parameters(dtype=torch.float64) for _ in range(4))
    train(kind(stacked), stacked, steps=5)
    train(kind(alone, foreach=False), alone, steps=5)
    small = type("Small", (kind,), {"max_stack_bytes": 1025})
    train(small(capped), capped, steps=5)
    train(kind(list(reversed(turned))), turned, steps=5)
    for results in zip(stacked, alone, capped, turned, strict=True):
        for result in results[1:]:
            torch.testing.assert_close(result, results[0], rtol=0, atol=1e-12)


@every_class
@pytest.mark.parametrize("foreach", [None, False])
def test_gradients_are_only_read(kind, foreach):
    optimizer, params = mixed(kind, foreach=foreach)
    for parameter in params:
        parameter.grad = gaussian(*parameter.shape)
    before = [parameter.grad.clone() for parameter in params]
    optimizer.step()
    assert_all_equal([parameter.grad for parameter in params], before)


@every_class
def test_maximize_goes_the_other_way(kind):
    up, climbing = mixed(kind, maximize=True, weight_decay=0.0)
    down, falling = mixed(kind, weight_decay=0.0)
    start = [parameter.detach().clone() for parameter in climbing]
    for parameter, other in zip(climbing, falling, strict=True):
        parameter.grad = gaussian(*parameter.shape)
        other.grad = parameter.grad.clone()
    up.step()
    down.step()
    for climbed, fell, began in zip(climbing, falling, start, strict=True):
        torch.testing.assert_close(climbed - began, began - fell)


@every_class
def test_a_parameter_without_a_gradient_is_left_alone(kind):
    optimizer, params = mixed(kind)
    before = [parameter.detach().clone() for parameter in params]
    params[0].grad = gaussian(*params[0].shape)
    optimizer.step()
    assert not torch.equal(params[0], before[0])
    assert_all_equal(params[1:], before[1:])
    assert set(optimizer.state) == {params[0]}


@every_class
def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned(kind):
    [parameter] = parameters([(4, 4)])
    optimizer = kind([parameter])

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    before = parameter.square().sum().item()
    assert optimizer.step(closure).item() == before
    assert optimizer.step() is None


@every_class
def test_a_tensor_learning_rate_acts_as_the_number(kind):
    with_number, first = mixed(kind, lr=0.02)
    with_tensor, second = mixed(kind, lr=torch.tensor(0.02, dtype=torch.float64))
    train(with_number, first, steps=4)
    train(with_tensor, second, steps=4)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@every_class
def test_training_goes_on_from_a_state_dict_to_the_last_bit(kind):
    optimizer, params = mixed(kind)
    train(optimizer, params, steps=3)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "params": params}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed, others = mixed(kind)
    with torch.no_grad():
        for other, value in zip(others, saved["params"], strict=True):
            other.copy_(value)
    resumed.load_state_dict(state_dict=saved["optimizer"])
    train(optimizer, params, steps=3, first=3)
    train(resumed, others, steps=3, first=3)
    assert_all_equal(params, others)


@every_class
def test_an_optimizer_can_be_copied_and_pickled(kind):
    optimizer, params = mixed(kind)
    train(optimizer, params, steps=2)
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        others = [parameter for group in twin.param_groups for parameter in group["params"]]
        train(twin, others, steps=1, first=2)
    train(optimizer, params, steps=1, first=2)
    assert_all_equal(params, others)


@every_class
def test_schedulers_reach_every_group(kind):
    optimizer, _ = mixed(kind, lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


@every_class
def test_groups_can_be_added_later_with_options_of_their_own(kind):
    optimizer, params = mixed(kind, lr=0.1)
    [matrix] = parameters([(6, 3)], dtype=torch.float64)
    optimizer.add_param_group({"params": [matrix], "lr": 0.2, "eps": 1e-3})
    assert optimizer.param_groups[-1]["eps"] == 1e-3
    train(optimizer, [*params, matrix], steps=2)
    assert not torch.equal(matrix.detach(), parameters([(6, 3)], dtype=torch.float64)[0])


def test_an_adamw_group_has_the_options_of_adamw_only():
    given = {"params": parameters([(5,)]), "algorithm": "adamw", "initial_lr": 0.5}
    [group] = Root([given], lr=0.5, weight_decay=0.3).param_groups
    options = {name: value for name, value in group.items() if name != "params"}
    assert options == {
        "algorithm": "adamw",
        "lr": 0.5,
        "initial_lr": 0.5,
        "weight_decay": 0.3,
        "betas": (0.9, 0.95),
        "eps": 1e-8,
        "maximize": False,
        "foreach": None,
        "capturable": False,
    }


@every_class
def test_named_parameters_keep_their_names(kind):
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    optimizer = kind(model.named_parameters())
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["0.weight", "1.weight"]


@every_class
def test_a_plain_list_of_what_is_no_matrix_is_refused_with_its_shape(kind):
    for shape in [(5,), (2, 3, 3), ()]:
        with pytest.raises(ValueError, match=r"got shape \(" + ", ".join(map(str, shape))):
            kind([nn.Parameter(torch.zeros(shape))])


def test_a_refused_group_is_not_kept():
    optimizer = Muon(parameters())
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Muon, {"lr": -1.0}, "lr must be at least 0: got -1.0"),
        (Muon, {"lr": float("nan")}, "lr must be a finite number: got nan"),
        (Muon, {"lr": torch.ones(2)}, r"one element: got shape \(2,\)"),
        (Muon, {"momentum": 1.0}, "momentum must be below 1: got 1.0"),
        (Muon, {"ns_steps": 0}, "ns_steps must be at least 1: got 0"),
        (Muon, {"ns_steps": 2.0}, "ns_steps must be a whole number: got 2.0"),
        (Muon, {"nesterov": 1}, "nesterov must be true or false: got 1"),
        (Muon, {"adjust_lr_fn": "spectral"}, "adjust_lr_fn must be one of .*: got 'spectral'"),
        (Muon, {"solver": "svd", "ns_coefficients": (1.0, 0.0, 0.0)}, "fixed coefficients"),
        (Muon, {"solver": "svd", "compute_dtype": "bfloat16"}, "got 'bfloat16'"),
        (Muon, {"differentiable": True}, "got differentiable=True"),
        (Root, {"percentile": 90}, r"percentile is a fraction of 1, did you mean 0.90\?: got 90"),
        (PolarGrad, {"scale": "frobenius"}, "scale must be one of nuclear, nuclear_mean: got 'frobenius'"),
    ],
)
def test_an_illegal_option_is_refused_with_its_value(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(parameters(), **options)


def test_options_of_a_group_are_checked_too():
    with pytest.raises(ValueError, match=r"did you mean 'adamw'.*got 'adam'"):
        Muon([{"params": parameters(), "algorithm": "adam"}])
    with pytest.raises(ValueError, match=r"betas must be two numbers in \[0, 1\): got \(0.9, 1.0\)"):
        Muon([{"params": parameters(), "algorithm": "adamw", "betas": (0.9, 1.0)}])


@every_class
def test_complex_parameters_and_sparse_gradients_are_refused(kind):
    with pytest.raises(ValueError, match=r"got torch.complex64"):
        kind([nn.Parameter(torch.zeros(3, 3, dtype=torch.complex64))])
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = kind([{"params": embedding.parameters(), "algorithm": "adamw"}])
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"got one of shape \(5, 3\)"):
        optimizer.step()


@every_class
def test_a_non_finite_gradient_shows_in_its_parameter_and_in_no_other(kind):
    params = parameters()
    for parameter in params:
        parameter.grad = gaussian(*parameter.shape, dtype=torch.float32)
    params[0].grad[0, 0] = torch.inf
    kind(params).step()
    assert not params[0].isfinite().any()
    assert all(parameter.isfinite().all() for parameter in params[1:])


@every_class
def test_a_tall_layer_learns(kind):
    torch.manual_seed(0)
    target, layer = gaussian(12, 4, dtype=torch.float32), nn.Linear(4, 12, bias=False)
    rates = {Muon: 0.03, PolarGrad: 0.5, Root: 0.1, SpectralDescent: 0.03}
    optimizer = kind(layer.parameters(), lr=rates[kind], weight_decay=0.0)
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        loss = 0.5 * (layer.weight - target).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
