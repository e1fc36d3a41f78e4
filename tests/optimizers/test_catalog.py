"""The catalogue, and optimizers built from it."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from spectune import optimizers
from spectune.optimizers import (
    OPTIMIZERS,
    GradientDescentRule,
    Muon,
    PolarGrad,
    Root,
    SpectralDescent,
    apply_update,
    build_optimizer,
)
from spectune.optimizers.catalog import BESIDE, SPECTRAL_CLASSES
from spectune.search_spaces import DEFAULT_SPACES

NOT_SEARCHED = {"self", "params", "maximize", "foreach", "capturable", "differentiable", "ns_coefficients"}


def model():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("name", list(SPECTRAL_CLASSES))
def test_the_catalogue_declares_what_the_constructor_takes(name):
    signature = inspect.signature(SPECTRAL_CLASSES[name].__init__).parameters
    taken = {key: parameter.default for key, parameter in signature.items() if key not in NOT_SEARCHED}
    declared = {key: entry.default for key, entry in OPTIMIZERS[name].hyperparameters.items() if key not in BESIDE}
    assert declared == taken
    assert SPECTRAL_CLASSES[name]([nn.Parameter(torch.zeros(2, 2))]).defaults.items() >= taken.items()


def test_the_catalogue_declares_what_torch_adamw_takes():
    signature = inspect.signature(torch.optim.AdamW.__init__).parameters
    for name, entry in OPTIMIZERS["adamw"].hyperparameters.items():
        assert signature[name].default == entry.default


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_default_is_legal_and_every_entry_carries_its_name(name):
    assert OPTIMIZERS[name].name == name
    for key, entry in OPTIMIZERS[name].hyperparameters.items():
        assert entry.name == key
        assert entry.sentence.endswith(".")
        assert entry.problem_with(entry.default) is None


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_the_default_space_of_an_optimizer_lies_in_what_is_legal(name):
    table = OPTIMIZERS[name].hyperparameters
    for key, domain in DEFAULT_SPACES[name].items():
        assert key in table
        for value in domain.extremes():
            assert table[key].problem_with(value) is None


def test_the_public_face_lists_what_it_has():
    assert sorted(optimizers.__all__, key=str.lower) == sorted(set(optimizers.__all__), key=str.lower)
    assert all(hasattr(optimizers, name) for name in optimizers.__all__)


def test_the_names_of_optimizers_and_of_default_spaces_agree():
    assert list(OPTIMIZERS) == list(DEFAULT_SPACES)


@pytest.mark.parametrize(
    ("name", "kind"), [("muon", Muon), ("polargrad", PolarGrad), ("root", Root), ("spectral_descent", SpectralDescent)]
)
def test_one_object_trains_the_whole_model(name, kind):
    network = model()
    optimizer = build_optimizer(network, name, lr=0.02)
    assert isinstance(optimizer, kind)
    matrices, head, biases = optimizer.param_groups
    assert matrices["param_names"] == ["0.weight", "2.weight"]
    assert head["param_names"] == ["4.weight"]
    assert biases["param_names"] == ["0.bias", "2.bias", "4.bias"]
    assert (matrices["lr"], matrices["initial_lr"]) == (0.02, 0.02)
    assert head["lr"] == head["initial_lr"] == biases["lr"]
    before = [parameter.detach().clone() for parameter in network.parameters()]
    network(torch.randn(5, 6)).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(now, then) for now, then in zip(network.parameters(), before, strict=True))


def test_adamw_is_torch_adamw_over_every_parameter():
    network = model()
    optimizer = build_optimizer(network, "adamw", lr=0.01, betas=[0.8, 0.98])
    assert type(optimizer) is torch.optim.AdamW
    [group] = optimizer.param_groups
    assert len(group["params"]) == 6
    assert (group["lr"], group["initial_lr"], group["betas"]) == (0.01, 0.01, (0.8, 0.98))


def test_sgd_is_torch_sgd_over_every_parameter_and_takes_the_steps_of_the_rule():
    network = model()
    optimizer = build_optimizer(network, "sgd", lr=0.3, weight_decay=0.02)
    assert type(optimizer) is torch.optim.SGD
    before = [parameter.detach().clone() for parameter in network.parameters()]
    network(torch.randn(5, 6)).square().mean().backward()
    optimizer.step()
    for now, then in zip(network.parameters(), before, strict=True):
        update, state = GradientDescentRule().update(now.grad, {}, {})
        torch.testing.assert_close(now.detach(), apply_update(then, update, lr=0.3, weight_decay=0.02))
        assert state == {}
        assert update is not now.grad


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("muon", {"lr": 0.02}, 0.002),
        ("muon", {"lr": 0.02, "adjust_lr_fn": "match_rms_adamw"}, 0.02),
        ("muon", {"lr": 0.02, "adjust_lr_fn": "rms_to_rms"}, 0.002),
        ("root", {"lr": 3e-4}, 3e-4),
        ("root", {}, 1e-3),
        ("spectral_descent", {"lr": 0.05}, 0.005),
        ("polargrad", {}, 1e-3),
        ("polargrad", {"lr": 30.0}, 1e-3),
        ("polargrad", {"lr": 30.0, "adamw_lr_ratio": 0.5}, 15.0),
        ("polargrad", {"lr": 30.0, "adamw_lr": 0.1}, 0.1),
        ("root", {"lr": 3e-4, "adamw_lr_ratio": 0.1}, 3e-5),
    ],
)
def test_the_rate_of_adamw_follows_from_what_the_matrices_rate_means(name, options, expected):
    for group in build_optimizer(model(), name, **options).param_groups[1:]:
        assert group["lr"] == group["initial_lr"] == pytest.approx(expected)


@pytest.mark.parametrize("name", list(SPECTRAL_CLASSES))
def test_gains_and_biases_do_not_decay_unless_it_is_asked_for(name):
    network = nn.Sequential(
        nn.Embedding(7, 6), nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.PReLU(), nn.Linear(8, 3)
    )
    network.register_parameter("gate", nn.Parameter(torch.ones(1, 8)))
    _, decayed, vectors = build_optimizer(network, name, weight_decay=0.2).param_groups
    assert decayed["param_names"] == ["0.weight", "5.weight"]
    assert vectors["param_names"] == ["gate", "1.bias", "2.weight", "2.bias", "3.bias", "4.weight", "5.bias"]
    assert (decayed["weight_decay"], vectors["weight_decay"]) == (0.2, 0.0)
    _, decayed, vectors = build_optimizer(network, name, adamw_weight_decay=0.3).param_groups
    assert (decayed["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)
    _, everything = build_optimizer(network, name, weight_decay=0.2, decay_vectors=True).param_groups
    assert everything["weight_decay"] == 0.2
    assert len(everything["params"]) == 9


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.95), "eps": 1e-8}),
        ({"adamw_lr": 0.5}, {"lr": 0.5}),
        ({"adamw_lr_ratio": 0.3}, {"lr": 0.03}),
        ({"adamw_lr": None, "adamw_lr_ratio": 0.3}, {"lr": 0.03}),
        ({"weight_decay": 0.02}, {"weight_decay": 0.02}),
        ({"weight_decay": 0.02, "adamw_weight_decay": 0.0}, {"weight_decay": 0.0}),
        ({"adamw_betas": [0.8, 0.9], "adamw_eps": 1e-6}, {"betas": (0.8, 0.9), "eps": 1e-6}),
    ],
)
def test_the_rest_follows_the_matrices_unless_it_is_told_otherwise(options, expected):
    rest = build_optimizer(model(), "muon", lr=0.1, **options).param_groups[1]
    for name, value in expected.items():
        assert rest[name] == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mun", {}, "unknown optimizer, did you mean 'muon'.*got 'mun'"),
        ("muon", {"momentm": 0.9}, "unknown hyperparameter of muon, did you mean 'momentum'.*got 'momentm'"),
        ("muon", {"percentile": 0.9}, "got 'percentile'"),
        ("adamw", {"momentum": 0.9}, "got 'momentum'"),
        ("muon", {"lr": "fast"}, "lr must be a finite number: got 'fast'"),
        ("muon", {"adamw_lr": 0.1, "adamw_lr_ratio": 0.1}, "either adamw_lr or adamw_lr_ratio: got 0.1 and 0.1"),
        ("root", {"percentile": 90}, r"did you mean 0.90\?: got 90"),
        ("muon", {"adamw_betas": 0.9}, "got 0.9"),
    ],
)
def test_what_cannot_be_built_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(model(), name, **options)


def test_a_model_without_a_matrix_is_refused_with_the_report():
    with pytest.raises(ValueError, match=r"(?s)Muon needs a matrix.*1-dimensional"):
        build_optimizer(nn.LayerNorm(4), "muon")


def test_a_model_of_matrices_alone_has_one_group():
    optimizer = build_optimizer(nn.Linear(3, 4, bias=False), "root")
    assert len(optimizer.param_groups) == 1
