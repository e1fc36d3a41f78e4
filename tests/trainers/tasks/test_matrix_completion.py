"""Matrix completion: data, splits and loss."""

from __future__ import annotations

import pytest
import torch

from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.matrix_completion import Factors, MatrixCompletion
from spectune.trainers.tasks.options import TaskOptionError
from spectune.trainers.tasks.task import place

TASK = MatrixCompletion(rows=12, columns=9, rank=2, observed_fraction=0.3)


def test_the_batch_is_one_problem_for_every_step_and_another_for_another_seed() -> None:
    assert TASK.batch(0, 5) is TASK.batch(7, 5)
    assert not torch.equal(TASK.batch(0, 5)[0], TASK.batch(0, 6)[0])


def test_the_matrix_has_the_rank_asked_for() -> None:
    assert torch.linalg.matrix_rank(TASK.batch(0, 5)[0]) == 2


def test_the_loss_is_the_mean_squared_error_over_the_observed_entries_only() -> None:
    target, weight = TASK.batch(0, 5)
    observed = weight > 0
    assert observed.sum() == TASK.items_per_step == round(0.3 * 12 * 9)
    model = TASK.build(generator_for("model", 1)).double()
    expected = sum((model()[i, j] - target[i, j]) ** 2 for i, j in observed.nonzero()) / observed.sum()
    torch.testing.assert_close(TASK.loss(model, (target, weight)), expected)


def test_the_validation_loss_is_over_exactly_the_other_entries() -> None:
    target, weight = TASK.batch(0, 5)
    hidden = weight == 0
    model = TASK.build(generator_for("model", 1)).double()
    expected = (model() - target)[hidden].square().mean().item()
    metrics = TASK.evaluate(model, 5)
    assert metrics["validation_loss"] == pytest.approx(expected, rel=1e-12)
    assert metrics["observed_loss"] == pytest.approx(TASK.loss(model, (target, weight)).item(), rel=1e-12)


def test_the_true_factors_have_no_error_where_nobody_looked() -> None:
    target = TASK.batch(0, 5)[0]
    left, values, right = torch.linalg.svd(target)
    model = Factors(left[:, :2] * values[:2], right[:2].mT)
    assert max(TASK.evaluate(model, 5).values()) < 1e-25


def test_factors_start_between_minus_one_and_one_and_depend_on_the_generator_alone() -> None:
    model = TASK.build(generator_for("model", 1))
    assert model.left.dtype is torch.float32
    assert model.left.abs().max() <= 1.0 < model.left.abs().max() + 0.2
    torch.rand(3)
    assert torch.equal(model.right, TASK.build(generator_for("model", 1)).right)
    assert not torch.equal(model.right, TASK.build(generator_for("model", 2)).right)


def test_a_placed_batch_has_the_models_dtype() -> None:
    assert {part.dtype for part in place(TASK.batch(0, 5), TASK.build(generator_for("model", 1)))} == {torch.float32}


@pytest.mark.parametrize(
    ("task", "option"),
    [
        (MatrixCompletion(rows=0), "rows"),
        (MatrixCompletion(columns=-1), "columns"),
        (MatrixCompletion(rank=0), "rank"),
        (MatrixCompletion(rows=4, columns=300, rank=5), "rank"),
        (MatrixCompletion(observed_fraction=0.0), "observed_fraction"),
        (MatrixCompletion(observed_fraction=1.0), "observed_fraction"),
        (MatrixCompletion(rows=2, columns=1, rank=1, observed_fraction=0.9), "observed_fraction"),
        (MatrixCompletion(rows=True), "rows"),
    ],
)
def test_impossible_options_are_refused_by_name(task: MatrixCompletion, option: str) -> None:
    with pytest.raises(TaskOptionError) as caught:
        task.check()
    assert caught.value.option == option
