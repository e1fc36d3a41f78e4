"""The counting behind benchmarks/claims.py."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.claims import METHODS, Method, attention, factorization, gradient_descent, quadratic_descent
from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks import LinearAttention


def test_the_closed_form_counts_the_steps_that_gradient_descent_takes() -> None:
    task = LinearAttention(condition=10.0)
    arrival = quadratic_descent(10.0, task.size, task.examples)
    model = task.build(generator_for("model", 0)).double()
    covariance, product = task.batch(0, 0)
    largest = torch.linalg.eigvalsh(covariance @ covariance @ product @ torch.linalg.inv(covariance)).max()
    rate = arrival.rate * 2.0 / largest.item()
    query, excess, steps = model.weight.detach(), 1.0, 0
    while excess >= 1e-6:
        query -= rate * (covariance @ query @ product - covariance @ covariance)
        steps += 1
        excess = task.evaluate(model, 0)["excess"] if steps >= arrival.steps[0] - 1 else 1.0
    assert steps == arrival.steps[0]


@pytest.mark.parametrize("solve", [factorization, attention])
def test_spectral_descent_arrives_and_a_rate_that_cannot_does_not(solve: object) -> None:
    method = METHODS["attention"]["spectral descent"]
    arrives = Method(method.name, (0.5,), (0.6,), 60, method.start)
    short = Method(method.name, (0.1,), (0.5,), 60, method.start)  # travels 0.2 in all
    assert all(math.isfinite(steps) for steps in solve(10.0, arrives).steps)  # type: ignore[operator]
    assert all(math.isinf(steps) for steps in solve(10.0, short).steps)  # type: ignore[operator]


def test_a_point_that_diverges_never_arrives() -> None:
    wild = Method("wild", (100.0,), (1.0,), 30, gradient_descent)
    assert all(math.isinf(steps) for steps in factorization(10.0, wild).steps)
