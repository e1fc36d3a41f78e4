"""A step that fails has changed nothing: no parameter, no momentum, no count of steps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from spectune.optimizers import Muon, PolarGrad, Root, SpectralDescent
from spectune.optimizers.rules import spectral
from tests.optimizers.references import gaussian

CLASSES = [Muon, PolarGrad, Root, SpectralDescent]
every_class = pytest.mark.parametrize("kind", CLASSES)
SHAPES = [(8, 6), (8, 6), (5, 9), (12, 4), (3,)]


def trained(kind, steps, **options):
    """Return an optimizer of several batches, with steps behind it and the next gradients in place."""
    params = [nn.Parameter(gaussian(*shape, seed=seed, dtype=torch.float32)) for seed, shape in enumerate(SHAPES)]
    groups = [{"params": params[:2]}, {"params": params[4:], "algorithm": "adamw"}, {"params": params[2:4]}]
    optimizer = kind(groups, lr=0.1, **options)
    for step in range(steps + 1):
        for seed, parameter in enumerate(params):
            parameter.grad = gaussian(*parameter.shape, seed=100 * step + seed, dtype=torch.float32)
        if step < steps:
            optimizer.step()
    return optimizer, params


def snapshot(optimizer, params):
    return copy.deepcopy([parameter.detach() for parameter in params]), copy.deepcopy(optimizer.state_dict())


def assert_unchanged(optimizer, params, before):
    weights, state = before
    assert all(torch.equal(one, other) for one, other in zip(params, weights, strict=True))
    now = optimizer.state_dict()["state"]
    assert now.keys() == state["state"].keys()
    for number, entries in now.items():
        assert all(torch.equal(value, state["state"][number][name]) for name, value in entries.items())


@every_class
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.linalg.LinAlgError, KeyboardInterrupt])
@pytest.mark.parametrize("foreach", [None, False])
def test_a_solver_that_fails_at_any_batch_leaves_all_as_it_was(kind, steps, call, error, foreach, monkeypatch):
    optimizer, params = trained(kind, steps, foreach=foreach)
    twin, others = trained(kind, steps, foreach=foreach)
    before, calls, solve = snapshot(optimizer, params), [], spectral.polar_factor

    def failing(*args, **options):
        calls.append(1)
        if len(calls) == call:
            raise error("on purpose")
        return solve(*args, **options)

    monkeypatch.setattr(spectral, "polar_factor", failing)
    with pytest.raises(error, match="on purpose"):
        optimizer.step()
    assert_unchanged(optimizer, params, before)
    monkeypatch.undo()
    optimizer.step()
    twin.step()
    assert all(torch.equal(one, other) for one, other in zip(params, others, strict=True))


@every_class
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", "fast"),
        ("lr", float("nan")),
        ("lr", None),
        ("weight_decay", "some"),
        ("ns_steps", 0),
        ("solver", "guess"),
        ("momentum", 1.5),
        ("compute_dtype", "float8"),
    ],
)
def test_an_option_set_to_something_illegal_is_refused_before_anything_is_written(kind, name, value):
    if name not in kind.hyperparameters:
        name, value = "lr", float("inf")
    for place in (0, 2):
        optimizer, params = trained(kind, 1)
        before = snapshot(optimizer, params)
        optimizer.param_groups[place][name] = value
        with pytest.raises(ValueError, match=rf"{name}.*got {value!r}"):
            optimizer.step()
        assert_unchanged(optimizer, params, before)


@every_class
@pytest.mark.parametrize(("name", "value"), [("betas", (0.9, 2.0)), ("eps", "tiny"), ("lr", None)])
def test_an_illegal_option_of_the_rest_stops_the_matrices_too(kind, name, value):
    optimizer, params = trained(kind, 1)
    before = snapshot(optimizer, params)
    optimizer.param_groups[1][name] = value
    with pytest.raises(ValueError, match=rf"{name} must be"):
        optimizer.step()
    assert_unchanged(optimizer, params, before)


@every_class
def test_a_sparse_gradient_in_the_last_group_stops_the_first_one(kind):
    optimizer, params = trained(kind, 1)
    before = snapshot(optimizer, params)
    params[3].grad = torch.eye(12, 4).to_sparse()
    with pytest.raises(ValueError, match="sparse gradient"):
        optimizer.step()
    assert_unchanged(optimizer, params, before)


@every_class
def test_a_schedule_may_round_a_rate_below_zero(kind):
    optimizer, params = trained(kind, 1)
    optimizer.param_groups[0]["lr"] = -1e-19
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in params)
