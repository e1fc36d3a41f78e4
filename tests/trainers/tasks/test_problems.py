"""Generated problems are kept within a bound of bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from spectune.trainers.tasks import MatrixCompletion, MatrixRegression
from spectune.trainers.tasks.problems import KEPT_BYTES, kept, kept_problems, problem_bytes


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    kept_problems.clear()
    yield
    kept_problems.clear()


def counted(make: Callable[..., Any]) -> tuple[Callable[..., Any], list[Hashable]]:
    """Return a kept function, and the list of what it is asked to generate."""
    asked: list[Hashable] = []

    def generate(*arguments: Hashable) -> Any:
        asked.append(arguments)
        return make(*arguments)

    return kept(generate), asked


def blank(num_bytes: int) -> Tensor:
    """A tensor of so many bytes, none of which is ever touched."""
    return torch.empty(num_bytes, dtype=torch.uint8)


def test_a_hundred_seeds_of_a_small_problem_are_generated_once_each() -> None:
    """Kept by number, 32 of them, every problem of 64 members with seeds of their own was generated anew each step."""
    task = MatrixCompletion(rows=20, columns=20, rank=3)
    first = [task.batch(0, seed) for seed in range(100)]
    assert all(task.batch(1, seed) is first[seed] for seed in range(100))
    assert len(kept_problems) == 100


def test_what_is_kept_stays_within_the_bound_and_the_oldest_go_first() -> None:
    problem, asked = counted(lambda seed: blank(KEPT_BYTES // 4))
    for seed in range(5):
        problem(seed)
    assert kept_problems.currsize <= KEPT_BYTES
    problem(4)
    assert len(asked) == 5
    problem(0)
    assert len(asked) == 6


def test_a_problem_larger_than_the_bound_stands_alone_and_is_generated_once() -> None:
    """Had it not been kept, a step of such a problem would have waited for it to be drawn again."""
    problem, asked = counted(lambda seed: blank(2 * KEPT_BYTES if seed == "huge" else 8))
    small, huge = problem(0), problem("huge")
    assert problem("huge") is huge
    assert (len(asked), len(kept_problems)) == (2, 1)
    problem("huge")
    assert problem(0) is not small
    assert len(kept_problems) == 1


def test_bytes_are_counted_once_where_two_tensors_share_them() -> None:
    matrix = torch.zeros(6, 4, dtype=torch.float64)
    assert problem_bytes(((matrix, matrix.mT), torch.zeros(3), 1.5)) == 6 * 4 * 8 + 3 * 4


def test_functions_of_two_tasks_do_not_meet() -> None:
    assert len(MatrixRegression(rows=4, columns=3, samples=9, outputs=5).batch(0, 1)) == 3
    assert len(MatrixCompletion(rows=4, columns=3, rank=1).batch(0, 1)) == 2
    assert len(kept_problems) == 2
