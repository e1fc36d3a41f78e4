"""States of older versions and of torch's optimizers go on, and what cannot be gone on from is refused at loading."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from spectune.optimizers import Muon, PolarGrad, Root, SpectralDescent
from tests.optimizers.references import gaussian

CLASSES = [Muon, PolarGrad, Root, SpectralDescent]
every_class = pytest.mark.parametrize("kind", CLASSES)
OURS_ALONE = ("algorithm", "solver", "compute_dtype", "maximize", "foreach", "capturable")


def matrices(shapes=((6, 4), (4, 6), (6, 4))):
    return [nn.Parameter(0.1 * gaussian(*shape, seed=seed, dtype=torch.float32)) for seed, shape in enumerate(shapes)]


def train(optimizer, params, steps, first=0):
    for step in range(first, first + steps):
        for seed, parameter in enumerate(params):
            parameter.grad = gaussian(*parameter.shape, seed=50 * step + seed, dtype=torch.float32)
        optimizer.step()


def mixed(kind, **options):
    params = [*matrices(), nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(2, 3))]
    return kind([{"params": params[:3]}, {"params": params[3:], "algorithm": "adamw"}], **options), params


def assert_equal(first, second):
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("options", [{}, {"adjust_lr_fn": "match_rms_adamw", "momentum": 0.8, "nesterov": False}])
def test_the_state_of_torch_muon_goes_on_as_there(options):
    theirs, ours = matrices(), matrices()
    torch_muon = torch.optim.Muon(theirs, lr=0.01, **options)
    train(torch_muon, theirs, 3)
    with torch.no_grad():
        for own, their in zip(ours, theirs, strict=True):
            own.copy_(their)
    muon = Muon(ours, compute_dtype="bfloat16")
    muon.load_state_dict(copy.deepcopy(torch_muon.state_dict()))  # else they would share their momenta
    assert muon.param_groups[0]["compute_dtype"] == "bfloat16"
    assert (muon.param_groups[0]["lr"], muon.param_groups[0]["algorithm"]) == (0.01, "spectral")
    train(torch_muon, theirs, 4, first=3)
    train(muon, ours, 4, first=3)
    for own, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, their, rtol=0, atol=2e-3)


@every_class
@pytest.mark.parametrize("as_number", [True, False])
def test_the_state_of_torch_adamw_goes_on_as_there_to_the_last_bit(kind, as_number):
    theirs, ours = [nn.Parameter(torch.ones(5))], [nn.Parameter(torch.ones(5))]
    adamw = torch.optim.AdamW(theirs, lr=0.01)
    train(adamw, theirs, 3)
    with torch.no_grad():
        ours[0].copy_(theirs[0])
    saved = copy.deepcopy(adamw.state_dict())
    if as_number:
        saved["state"][0]["step"] = 3
    optimizer = kind([{"params": ours, "algorithm": "adamw"}])
    optimizer.load_state_dict(saved)
    assert optimizer.state[ours[0]]["step"].item() == 3
    train(adamw, theirs, 3, first=3)
    train(optimizer, ours, 3, first=3)
    assert_equal(theirs, ours)


@every_class
@pytest.mark.parametrize("lost", [*OURS_ALONE, "lr", "weight_decay", "eps", "betas"])
def test_what_a_group_lacks_comes_from_the_constructor(kind, lost):
    optimizer, params = mixed(kind, lr=0.02, weight_decay=0.3)
    twin, others = mixed(kind, lr=0.02, weight_decay=0.3)
    train(optimizer, params, 2)
    train(twin, others, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        group.pop(lost, None)
    optimizer.load_state_dict(saved)
    train(optimizer, params, 2, first=2)
    train(twin, others, 2, first=2)
    assert_equal(params, others)


@every_class
def test_an_old_pickle_without_todays_options_goes_on(kind):
    optimizer, params = mixed(kind)
    train(optimizer, params, 2)
    state = optimizer.__getstate__()
    old = copy.deepcopy(state)
    for options in (*old["param_groups"], old["defaults"]):
        for name in OURS_ALONE[1:]:
            options.pop(name, None)
    revived = kind.__new__(kind)
    revived.__setstate__(old)
    others = [parameter for group in revived.param_groups for parameter in group["params"]]
    train(optimizer, params, 2, first=2)
    train(revived, others, 2, first=2)
    assert_equal(params, others)


def spoiled(saved, number, name, value):
    saved = copy.deepcopy(saved)
    if value is None:
        saved["state"][number]["other"] = saved["state"][number].pop(name)
    else:
        saved["state"][number][name] = value
    return saved


@pytest.mark.parametrize("kind", [Muon, PolarGrad, Root])
@pytest.mark.parametrize(
    ("number", "name", "value", "message"),
    [
        (1, "momentum_buffer", None, r"parameter 1 of its group lacks momentum_buffer"),
        (1, "momentum_buffer", torch.ones(6, 4), r"momentum_buffer of parameter 1 .* shape \(4, 6\): got \(6, 4\)"),
        (0, "momentum_buffer", torch.ones(6, 4, dtype=torch.int64), r"floating point: got torch.int64"),
        (0, "momentum_buffer", torch.ones(6, 4, dtype=torch.complex64), r"floating point: got torch.complex64"),
        (0, "momentum_buffer", "gone", r"momentum_buffer of parameter 0 must be a tensor: got 'gone'"),
        (3, "exp_avg", None, r"lacks exp_avg"),
        (3, "exp_avg_sq", torch.ones(4), r"exp_avg_sq .* shape \(5,\): got \(4,\)"),
        (4, "step", "three", r"step of parameter 4 must be a number: got 'three'"),
    ],
)
def test_a_state_that_is_not_its_parameters_is_refused_and_nothing_is_changed(kind, number, name, value, message):
    optimizer, params = mixed(kind)
    train(optimizer, params, 2)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(spoiled(before, number, name, value))
    now = optimizer.state_dict()
    assert now["param_groups"] == before["param_groups"]
    for place, entries in now["state"].items():
        assert all(torch.equal(entry, before["state"][place][key]) for key, entry in entries.items())


@every_class
@pytest.mark.parametrize(
    ("place", "options", "message"),
    [
        (0, {"solver": "guess"}, "solver .*got 'guess'"),
        (0, {"lr": -1.0}, "lr must be at least 0: got -1.0"),
        (0, {"algorithm": "lion"}, "algorithm.*got 'lion'"),
        (1, {"betas": (0.9, 1.0)}, r"betas .*got \(0.9, 1.0\)"),
        (1, {"amsgrad": True}, "amsgrad=True"),
        (1, {"decoupled_weight_decay": False}, "decoupled_weight_decay=False"),
    ],
)
def test_an_option_that_is_not_supported_is_refused_at_loading(kind, place, options, message):
    optimizer, params = mixed(kind)
    train(optimizer, params, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][place].update(options)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    assert all(group.get(name) != value for group in optimizer.param_groups for name, value in options.items())


@every_class
def test_a_state_of_another_number_of_parameters_is_refused(kind):
    optimizer, _ = mixed(kind)
    saved = optimizer.state_dict()
    with pytest.raises(ValueError, match="doesn't match the size"):
        kind([{"params": matrices()[:2]}, {"params": matrices()[:2], "algorithm": "adamw"}]).load_state_dict(saved)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        kind(matrices()).load_state_dict(saved)


@every_class
def test_unknown_options_of_a_group_are_kept(kind):
    optimizer, params = mixed(kind)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["note"] = "ours"
    optimizer.load_state_dict(saved)
    train(optimizer, params, 1)
    assert optimizer.state_dict()["param_groups"][0]["note"] == "ours"


@every_class
def test_numbers_of_numpy_and_tensors_are_stored_as_plain_ones(kind):
    numpy = pytest.importorskip("numpy")
    options = {"lr": numpy.float32(0.25), "weight_decay": torch.tensor(0.5), "ns_steps": numpy.int64(4)}
    optimizer, params = mixed(kind, **options)
    train(optimizer, params, 1)
    group = optimizer.param_groups[0]
    assert [(type(group[name]), group[name]) for name in options] == [(float, 0.25), (float, 0.5), (int, 4)]
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    optimizer.load_state_dict(torch.load(file, weights_only=True))
    optimizer.param_groups[0]["lr"] = numpy.float32(0.125)  # as a schedule of the user's may
    train(optimizer, params, 1, first=1)
    pickle.loads(pickle.dumps(optimizer))
