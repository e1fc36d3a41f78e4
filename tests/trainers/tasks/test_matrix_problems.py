"""Regression, logistic regression, factorisation and linear attention against obvious references in fp64."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks import (
    LinearAttention,
    MatrixFactorization,
    MatrixLogistic,
    MatrixRegression,
    Task,
    TaskOptionError,
)
from spectune.trainers.tasks.matrices import OneMatrix, geometric, orthonormal

REGRESSION = MatrixRegression(rows=6, columns=4, samples=15, outputs=9)
LOGISTIC = MatrixLogistic(rows=6, columns=4, samples=40, outputs=5, batch_size=7)
FACTORIZATION = MatrixFactorization(size=9, rank=3, condition=100.0)
ATTENTION = LinearAttention(size=5, examples=4, condition=20.0)


def test_the_gap_is_the_loss_above_the_least_squares_solution_of_the_whole_system() -> None:
    left, right, target = REGRESSION.batch(0, 3)
    system = torch.kron(left, right.mT.contiguous())  # row-major vec(A X B) = (A kron Bᵀ) vec(X)
    solution = torch.linalg.lstsq(system, target.flatten()[:, None]).solution.view(6, 4)
    best, model = OneMatrix(solution), REGRESSION.build(generator_for("model", 1)).double()
    smallest = REGRESSION.loss(best, (left, right, target)).item()
    assert REGRESSION.evaluate(best, 3)["gap"] < 1e-24
    measured = REGRESSION.evaluate(model, 3)
    assert measured["validation_loss"] == pytest.approx(REGRESSION.loss(model, (left, right, target)).item(), rel=1e-12)
    assert measured["gap"] == pytest.approx(measured["validation_loss"] - smallest, rel=1e-10)
    assert measured["gap"] > 1.0


def test_the_gap_is_seen_far_below_what_the_loss_itself_resolves() -> None:
    left, right, target = REGRESSION.batch(0, 3)
    solution = (torch.linalg.pinv(left) @ target @ torch.linalg.pinv(right)).clone()
    solution[0, 0] += 1e-9
    assert 1e-19 < REGRESSION.evaluate(OneMatrix(solution), 3)["gap"] < 1e-15


def test_the_logistic_loss_is_a_sum_over_entries_and_a_third_of_labels_is_positive() -> None:
    model = LOGISTIC.build(generator_for("model", 1)).double()
    left, right, labels = (part.double() for part in LOGISTIC.batch(2, 3))
    scores = left @ model.weight.detach() @ right
    expected = sum(
        float(torch.log1p(torch.exp(-c * s))) for c, s in zip(labels.flatten(), scores.flatten(), strict=True)
    )
    assert LOGISTIC.loss(model, (left, right, labels)).item() == pytest.approx(expected, rel=1e-12)
    big = dataclasses.replace(LOGISTIC, samples=2000, batch_size=2000)
    assert set(labels.unique().tolist()) == {-1.0, 1.0}
    assert (big.batch(0, 0)[2] > 0).double().mean().item() == pytest.approx(0.3085, abs=0.02)  # P(N(0,1) > 1/2)


def test_the_logistic_validation_is_the_mean_over_all_rows() -> None:
    model = OneMatrix(torch.zeros(6, 4))
    assert LOGISTIC.evaluate(model, 3)["validation_loss"] == pytest.approx(0.6931472, rel=1e-6)
    model = LOGISTIC.build(generator_for("model", 1))
    rows = [LOGISTIC.batch(step, 3) for step in range(200)]
    drawn = sum(LOGISTIC.loss(model, batch).item() for batch in rows) / (200 * 7 * 5)
    assert LOGISTIC.evaluate(model, 3)["validation_loss"] == pytest.approx(drawn, rel=0.1)


def test_the_factorised_matrix_has_the_singular_values_asked_for() -> None:
    values = torch.linalg.svdvals(FACTORIZATION.batch(0, 0)[0])
    torch.testing.assert_close(values[:3], torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64))
    assert values[3] < 1e-15
    other = dataclasses.replace(FACTORIZATION, problem_seed=1)
    assert not torch.allclose(FACTORIZATION.batch(0, 0)[0], other.batch(0, 0)[0])


def test_an_aligned_start_has_the_matrixs_singular_vectors_and_a_random_one_has_not() -> None:
    target = FACTORIZATION.batch(0, 0)[0]
    aligned = dataclasses.replace(FACTORIZATION, start="aligned").build(generator_for("model", 1))
    product = (aligned.left.double().mT @ target @ aligned.right.double()) / 1e-6
    torch.testing.assert_close(product.detach(), torch.diag(geometric(3, 100.0)), rtol=1e-5, atol=1e-6)
    drawn = FACTORIZATION.build(generator_for("model", 1))
    assert drawn.left.std().item() == pytest.approx(1e-3, rel=0.5)
    assert not torch.equal(drawn.left, FACTORIZATION.build(generator_for("model", 2)).left)


def test_mode_errors_see_a_small_mode_that_the_norm_does_not() -> None:
    left, values, right = torch.linalg.svd(FACTORIZATION.batch(0, 0)[0])
    without_last = values[:3] * torch.tensor([1.0, 1.0, 0.0])
    model = nn.Module()
    model.forward = lambda: (left[:, :3] * without_last) @ right[:3]  # type: ignore[method-assign]
    measured = FACTORIZATION.evaluate(model, 0)
    assert measured["mode_error"] == pytest.approx(1.0)
    assert measured["relative_error"] == pytest.approx(0.01, rel=0.01)


def test_the_population_loss_is_the_mean_over_sampled_prompts() -> None:
    task = dataclasses.replace(ATTENTION, prompts="sampled", batch_size=200_000)
    model = OneMatrix(0.5 * torch.randn(5, 5, dtype=torch.float64, generator=generator_for("test")))
    sampled = task.loss(model, task.batch(0, 3)).item()
    assert ATTENTION.loss(model, ATTENTION.batch(0, 3)).item() == pytest.approx(sampled, rel=0.02)
    assert task.evaluate(model, 3)["validation_loss"] == pytest.approx(sampled, rel=0.02)


def test_the_best_attention_has_no_gradient_and_no_excess() -> None:
    covariance, product = ATTENTION.batch(0, 3)
    best = OneMatrix(torch.linalg.solve(product, covariance))
    ATTENTION.loss(best, (covariance, product)).backward()  # type: ignore[no-untyped-call]
    assert best.weight.grad is not None
    assert best.weight.grad.norm() < 1e-12
    assert ATTENTION.evaluate(best, 3)["excess"] < 1e-20
    assert ATTENTION.evaluate(OneMatrix(torch.zeros(5, 5)), 3)["excess"] == pytest.approx(1.0)


def test_the_attention_of_a_prompt_is_what_the_model_says() -> None:
    task = dataclasses.replace(ATTENTION, prompts="sampled", batch_size=3)
    summary, asked, answer = task.batch(0, 3)
    query = torch.randn(5, 5, dtype=torch.float64, generator=generator_for("test"))
    expected = sum(0.5 * float(asked[i] @ query @ summary[i] - answer[i]) ** 2 for i in range(3)) / 3
    assert task.loss(OneMatrix(query), (summary, asked, answer)).item() == pytest.approx(expected, rel=1e-12)


def test_drawn_vectors_are_orthonormal_and_numbers_geometric() -> None:
    vectors: Tensor = orthonormal(7, 3, generator_for("test"))
    torch.testing.assert_close(vectors.mT @ vectors, torch.eye(3, dtype=torch.float64))
    assert geometric(3, 100.0).tolist() == pytest.approx([1.0, 0.1, 0.01])
    assert geometric(1, 100.0).tolist() == [1.0]


@pytest.mark.parametrize(
    ("task", "changes", "option"),
    [
        (REGRESSION, {"rows": 0}, "rows"),
        (REGRESSION, {"samples": 65_536, "rows": 8192}, "samples"),
        (LOGISTIC, {"samples": 65_536, "outputs": 8192}, "samples"),
        (ATTENTION, {"prompts": "sampled", "batch_size": 65_536, "examples": 65_536}, "batch_size"),
        (REGRESSION, {"columns": 10**9}, "columns"),
        (REGRESSION, {"samples": 5}, "samples"),
        (REGRESSION, {"outputs": 3}, "outputs"),
        (LOGISTIC, {"batch_size": 0}, "batch_size"),
        (LOGISTIC, {"batch_size": 10**7}, "batch_size"),
        (LOGISTIC, {"samples": -1}, "samples"),
        (FACTORIZATION, {"rank": 10}, "rank"),
        (FACTORIZATION, {"condition": 0.5}, "condition"),
        (FACTORIZATION, {"condition": float("nan")}, "condition"),
        (FACTORIZATION, {"start": "somewhere"}, "start"),
        (FACTORIZATION, {"start_scale": 0.0}, "start_scale"),
        (FACTORIZATION, {"problem_seed": -1}, "problem_seed"),
        (ATTENTION, {"size": 10**6}, "size"),
        (ATTENTION, {"examples": 0}, "examples"),
        (ATTENTION, {"prompts": "many"}, "prompts"),
    ],
)
def test_impossible_options_are_refused_by_name(task: Any, changes: dict[str, Any], option: str) -> None:
    changed: Task = dataclasses.replace(task, **changes)
    with pytest.raises(TaskOptionError) as caught:
        changed.check()
    assert caught.value.option == option
