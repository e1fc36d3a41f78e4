"""What holds for every task: purity, vectorisation, learning, a held-out or whole evaluation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from spectune.trainers import Schedule, SoloTrial, TrialSetting
from spectune.trainers.engines.fusibility import LossModule, fusion_problem
from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks import TASKS, Task, task_schema
from spectune.trainers.tasks.task import TRAINING_METRICS, Batch, batch_is_fixed, place

LEARNING_RATES = {
    "matrix_completion": 0.05,
    "matrix_regression": 0.05,
    "linear_attention": 0.02,
    "matrix_factorization": 0.05,
}


def test_every_task_has_a_small_one_here(small_task: Task) -> None:
    small_task.check()
    assert small_task.name in TASKS


def test_a_batch_depends_on_seed_and_step_alone(small_task: Task) -> None:
    first = [part.clone() for part in small_task.batch(3, 5)]
    small_task.batch(4, 6)
    torch.rand(3)
    fresh = copy.copy(small_task)
    assert all(torch.equal(a, b) for a, b in zip(first, fresh.batch(3, 5), strict=True))


def test_a_task_says_whether_its_batch_is_fixed(small_task: Task) -> None:
    batches = [small_task.batch(step, 5) for step in (0, 3)]
    assert all(map(torch.equal, *batches)) == batch_is_fixed(small_task)


def test_a_model_depends_on_its_generator_alone(small_task: Task) -> None:
    state = torch.get_rng_state()
    first, second = (small_task.build(generator_for("model", 1)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert {parameter.dtype for parameter in first.parameters()} == {torch.float32}


def test_gradients_of_a_stack_are_those_of_a_loop(small_task: Task) -> None:
    modules = [LossModule(small_task, small_task.build(generator_for("model", s)).double()) for s in range(3)]
    for number, module in enumerate(modules):  # start away from symmetric points, such as Q = 0
        for parameter in module.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator_for("test", number))
    batches = [place(small_task.batch(step, 5 + step), module) for step, module in enumerate(modules)]
    named = [dict(module.named_parameters()) for module in modules]
    stack = {name: torch.stack([each[name].detach() for each in named]) for name in named[0]}

    def loss(parameters: dict[str, Tensor], batch: Batch) -> Tensor:
        return functional_call(modules[0], parameters, batch)

    fused = vmap(grad(loss))(stack, tuple(torch.stack(parts) for parts in zip(*batches, strict=True)))
    for number, (module, batch) in enumerate(zip(modules, batches, strict=True)):
        module(*batch).backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(fused[name][number], parameter.grad, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(fused[name][0], fused[name][1])


def test_no_task_has_a_reason_not_to_be_fused(small_task: Task) -> None:
    assert fusion_problem(small_task) is None


def test_a_task_is_learned_and_reports_what_it_promises(small_task: Task) -> None:
    hyperparameters = {"lr": LEARNING_RATES.get(small_task.name, 0.01)}
    trial = SoloTrial(TrialSetting(small_task, "adamw", hyperparameters, Schedule("cosine"), 60, seed=1, data_seed=2))
    before = trial.report()
    trial.advance(60)
    after = trial.report()
    assert set(after) == set(small_task.metrics)
    assert after["validation_loss"] < before["validation_loss"]
    assert all(isinstance(after[name], float) for name in set(small_task.metrics) - set(TRAINING_METRICS))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_schema_says_type_default_bounds_and_a_sentence_for_every_option(name: str) -> None:
    schema = task_schema(name)
    assert schema["title"] == name
    for option, told in schema["properties"].items():
        assert told["description"].endswith("."), option
        assert option == "preset" or ("default" in told and {"type", "enum", "anyOf"} & set(told)), option
        numbers = [told.get("type"), *(each.get("type") for each in told.get("anyOf", ()))]
        if "integer" in numbers and option != "patch":
            assert {"minimum", "maximum"} <= set(told), option
