"""What every class refuses, by name and value, and what it must not hide."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spectune.optimizers import Muon, Root
from tests.optimizers.test_torch_contract import CLASSES, every_class, farthest, give_gradients, parameters


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


@every_class
def test_a_step_cannot_be_differentiated_through(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__} cannot be differentiated .*: got differentiable=True"):
        kind(parameters([(3, 3)]), differentiable=True)


@pytest.mark.slow
def test_a_shard_is_refused_by_every_class_in_either_kind_of_group():
    import torch.distributed as distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        shard = nn.Parameter(distribute_tensor(torch.zeros(4, 4), init_device_mesh("cpu", (1,)), [Shard(0)]))
        for kind in CLASSES:
            for group in ({}, {"algorithm": "adamw"}, {"num_heads": 2}):
                with pytest.raises(
                    ValueError, match=r"up.weight is sharded, only whole or replicated.*: got a DTensor of shape"
                ):
                    kind([{"params": [("up.weight", shard)], **group}])
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
def test_a_replicated_parameter_is_trained_as_the_plain_one_and_a_partial_one_refused():
    import torch.distributed as distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        partial = nn.Parameter(DTensor.from_local(torch.ones(4, 4), mesh, [Partial()]))
        for kind in CLASSES:
            with pytest.raises(ValueError, match=r"up.weight is a partial sum, only whole or replicated"):
                kind([("up.weight", partial)])
            for group in ({}, {"num_heads": 2}, {"algorithm": "adamw"}):
                plain = parameters([(6, 4), (6, 4)])
                whole = [nn.Parameter(distribute_tensor(each.detach(), mesh, [Replicate()])) for each in plain]
                optimizer, other = kind([{"params": plain, **group}]), kind([{"params": whole, **group}])
                for step in range(3):
                    give_gradients(plain, step)
                    for one, twin in zip(plain, whole, strict=True):
                        twin.grad = distribute_tensor(one.grad, mesh, [Replicate()])
                    optimizer.step()
                    other.step()
                    other.load_state_dict(other.state_dict())
                assert farthest(plain, [each.full_tensor() for each in whole]) == 0
    finally:
        distributed.destroy_process_group()


@every_class
@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.float64])
def test_a_gradient_of_another_dtype_is_refused_in_either_kind_of_group(kind, dtype):
    for group in ({}, {"algorithm": "adamw"}):
        [parameter] = parameters([(3, 3)])
        optimizer = kind([{"params": [("up.weight", parameter)], **group}])
        parameter.grad_dtype = None
        parameter.grad = torch.ones(3, 3).to(dtype)
        with pytest.raises(
            ValueError, match=rf"gradient of up.weight must be of its dtype, torch.float32: got {dtype}"
        ):
            optimizer.step()


@every_class
def test_illegal_options_that_all_have_are_refused_with_value_and_what_is_allowed(kind):
    cases = [
        ({"solver": "newton"}, r"solver must be one of newton_schulz, .*, svd: got 'newton'"),
        ({"compute_dtype": "float8"}, r"compute_dtype must be one of auto, .*: got 'float8'"),
        ({"ns_steps": 0}, r"ns_steps must be at least 1: got 0"),
        ({"ns_steps": 100}, r"ns_steps must be at most 99: got 100"),
        ({"lr": float("inf")}, r"lr must be a finite number: got inf"),
        ({"weight_decay": -0.1}, r"weight_decay must be at least 0: got -0.1"),
        ({"eps": -1.0}, r"eps must be at least 0: got -1.0"),
        ({"solver": "qdwh", "compute_dtype": "bfloat16"}, r"'qdwh' computes in float32 or float64: got 'bfloat16'"),
    ]
    for options, message in cases:
        if options.keys() <= kind.hyperparameters.keys():
            with pytest.raises(ValueError, match=message):
                kind(parameters([(3, 3)]), **options)
            with pytest.raises(ValueError, match=message):
                kind([{"params": parameters([(3, 3)]), **options}])


@pytest.mark.parametrize("percentile", [0.0, -0.1, 1.5, 90, float("nan"), float("inf"), "0.9", None, True])
def test_a_percentile_that_is_no_fraction_is_refused_by_the_class(percentile):
    with pytest.raises(ValueError, match=r"percentile .*: got"):
        Root(parameters([(3, 3)]), percentile=percentile)


@pytest.mark.parametrize(
    "coefficients", [(1.0, 2.0), ((1.0, 2.0, 3.0), (1.0,)), [], torch.ones(4), torch.ones(1, 2), "table"]
)
@pytest.mark.parametrize("solver", ["newton_schulz", "adanewton"])
def test_coefficients_of_a_wrong_shape_are_refused_by_the_class(coefficients, solver):
    with pytest.raises(ValueError, match=r"coefficients .*: got"):
        Muon(parameters([(3, 3)]), ns_coefficients=coefficients, solver=solver)


@every_class
def test_a_zero_gradient_moves_nothing_but_decay(kind):
    params = parameters([(6, 4), (4, 6)])
    start = [parameter.detach().clone() for parameter in params]
    optimizer = kind(params, lr=0.1, weight_decay=0.5)
    for _ in range(3):
        for parameter in params:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    assert farthest(params, [0.95**3 * value for value in start]) < 1e-7


@every_class
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_gradient_stays_visible_and_in_its_parameter(kind, bad):
    for options in ({}, {"solver": "svd"}, {"percentile": 1.0}, {"coefficients": "online", "refit_every": 1}):
        if not options.keys() <= kind.hyperparameters.keys():
            continue
        params = parameters([(6, 4), (6, 4), (4, 6)])
        give_gradients(params, 0)
        params[1].grad[2, 3] = bad
        kind(params, **options).step()
        assert [bool(parameter.isfinite().all()) for parameter in params] == [True, False, True]
