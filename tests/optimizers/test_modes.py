"""Modes of the moment, inference mode, a default device, fake tensors, functorch, leave nothing behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from spectune.optimizers import Muon, PolarGrad, Root, SpectralDescent
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.polar.solvers import SOLVERS
from spectune.optimizers.scratch import may_keep, scratch
from tests.optimizers.references import gaussian

CLASSES = [Muon, PolarGrad, Root, SpectralDescent]
SHAPES = [(64, 96), (64, 96), (96, 64), (7, 5)]
every_class = pytest.mark.parametrize("kind", CLASSES)


def fake_tensors():
    return FakeTensorMode()


def meta_device():
    return torch.device("meta")


def vectors():
    parameter = nn.Parameter(torch.ones(3, device="cpu"))
    parameter.grad = torch.ones(3, device="cpu")
    return parameter


def trained(kind, **options):
    """Return an optimizer with a matrix of each kind and a vector, all with gradients, and its parameters."""
    matrices = [nn.Parameter(gaussian(*shape, seed=seed, dtype=torch.float32)) for seed, shape in enumerate(SHAPES)]
    for seed, matrix in enumerate(matrices):
        matrix.grad = gaussian(*matrix.shape, seed=100 + seed, dtype=torch.float32)
    vector = vectors()
    return kind([{"params": matrices}, {"params": [vector], "algorithm": "adamw"}], **options), [*matrices, vector]


@every_class
@pytest.mark.parametrize("mode", [torch.inference_mode, meta_device, fake_tensors], ids=["inference", "meta", "fake"])
def test_a_step_in_a_thread_that_met_a_mode_equals_one_that_did_not(kind, mode):
    expected, params = trained(kind)
    expected.step()
    with mode():
        for solver in SOLVERS:
            polar_factor(torch.ones(64, 96), solver=solver)
            polar_factor(torch.ones(4, 70, 90), solver=solver)
    optimizer, others = trained(kind)
    optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(params, others, strict=True))


@every_class
@pytest.mark.parametrize("mode", [torch.inference_mode, meta_device], ids=["inference", "meta"])
@pytest.mark.parametrize("options", [{}, {"coefficients": "online", "refit_every": 1}], ids=["plain", "online"])
def test_a_first_step_under_a_mode_makes_states_that_the_next_step_can_move(kind, mode, options):
    if not options.keys() <= kind.hyperparameters.keys():
        options = {}
    if kind is Muon:
        options = {**options, "compute_dtype": "float32"}  # bfloat16 rounds otherwise without kept memory
    optimizer, params = trained(kind, **options)
    expected, others = trained(kind, **options)
    with mode():
        optimizer.step()
    optimizer.step()
    expected.step()
    expected.step()
    assert all(torch.equal(one, other) for one, other in zip(params, others, strict=True))
    for state in optimizer.state.values():
        assert all(value.device.type == "cpu" and not value.is_inference() for value in state.values())


@every_class
def test_a_state_loaded_in_inference_mode_can_be_moved(kind):
    optimizer, _ = trained(kind)
    optimizer.step()
    saved = {name: copy.deepcopy(value) for name, value in optimizer.state_dict().items()}
    with torch.inference_mode():
        optimizer.load_state_dict(saved)
    optimizer.step()


def test_no_memory_is_kept_while_a_mode_is_active():
    plain = torch.ones(2, 3)
    kept = scratch((2, 3), "test_modes", like=plain)
    assert scratch((2, 3), "test_modes", like=plain).data_ptr() == kept.data_ptr()
    for mode in (torch.inference_mode, meta_device):
        with mode():
            assert not may_keep(plain)
            assert scratch((2, 3), "test_modes", like=plain).data_ptr() != kept.data_ptr()
    with FakeTensorMode():
        assert not may_keep(torch.ones(2, 3))

    def inside(matrix):
        assert not may_keep(plain)
        return matrix.sum()

    torch.func.vmap(inside)(torch.ones(2, 3))
    torch.func.grad(inside)(torch.ones(2, 3))
    with torch.inference_mode():
        made_there = torch.ones(2, 3)
    assert not may_keep(made_there)


@every_class
def test_autocast_and_a_default_dtype_do_not_change_a_step(kind):
    expected, params = trained(kind)
    expected.step()
    optimizer, others = trained(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(params, others, strict=True))
    optimizer, others = trained(kind)
    torch.set_default_dtype(torch.float64)
    try:
        optimizer.step()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(params, others, strict=True))


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_a_polar_factor_under_vmap_equals_the_batched_one(solver):
    matrices = gaussian(3, 6, 9, seed=1)
    mapped = torch.func.vmap(lambda matrix: polar_factor(matrix, solver=solver))(matrices)
    torch.testing.assert_close(mapped, polar_factor(matrices, solver=solver), rtol=0, atol=1e-9)


@pytest.mark.parametrize("solver", list(SOLVERS))
@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6), (2, 6, 4)])
def test_a_polar_factor_can_be_differentiated(solver, shape):
    matrix, weights = gaussian(*shape, seed=3), gaussian(*shape, seed=4)

    def value(matrix):
        return (polar_factor(matrix, solver=solver) * weights).sum()

    along, leaf = gaussian(*shape, seed=5), matrix.clone().requires_grad_()
    value(leaf).backward()
    numerical = (value(matrix + 1e-6 * along) - value(matrix - 1e-6 * along)) / 2e-6
    torch.testing.assert_close((leaf.grad * along).sum(), numerical, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.func.grad(value)(matrix), leaf.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@every_class
def test_a_step_compiles_as_one_graph(kind):
    torch.compiler.reset()
    exact = {"compute_dtype": "float32"} if kind is Muon else {}  # bfloat16 rounds otherwise once compiled
    optimizer, params = trained(kind, lr=torch.tensor(0.01), **exact)
    plain, others = trained(kind, lr=torch.tensor(0.01), **exact)
    step = torch.compile(optimizer.step, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        step()
        plain.step()
    assert max((one - other).abs().max().item() for one, other in zip(params, others, strict=True)) < 1e-4
