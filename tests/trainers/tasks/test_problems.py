"""Problems that are generated once."""

from __future__ import annotations

import pytest
import torch
from cachetools import LRUCache

from trainers.tasks import problems
from trainers.tasks.matrix_completion import MatrixCompletion
from trainers.tasks.problems import kept, num_bytes


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> LRUCache[object, object]:
    empty: LRUCache[object, object] = LRUCache(100_000, getsizeof=num_bytes)
    monkeypatch.setattr(problems, "_problems", empty)
    return empty


def test_the_problems_of_many_data_seeds_are_generated_once_each() -> None:
    task = MatrixCompletion(rows=20, columns=20, rank=2)
    first = [task.batch(0, seed) for seed in range(1000, 1100)]
    again = [task.batch(step, seed) for step, seed in enumerate(range(1000, 1100))]
    assert all(a is b for a, b in zip(first, again, strict=True))


def test_functions_of_equal_arguments_do_not_mix_their_problems(cache: LRUCache[object, object]) -> None:
    zeros, ones = kept(lambda seed: torch.zeros(seed)), kept(lambda seed: torch.ones(seed))
    assert zeros(3).tolist() == [0.0, 0.0, 0.0]
    assert ones(3).tolist() == [1.0, 1.0, 1.0]


def test_kept_problems_stay_below_the_bound_and_the_oldest_goes_first(cache: LRUCache[object, object]) -> None:
    generated: list[int] = []

    @kept
    def problem(seed: int) -> tuple[torch.Tensor, float]:
        generated.append(seed)
        return torch.zeros(10_000), 1.0  # 40 kB

    for seed in (0, 1, 2, 2, 0):
        problem(seed)
    assert generated == [0, 1, 2, 0]
    assert cache.currsize == 80_000


def test_a_problem_larger_than_the_bound_is_given_and_not_kept(cache: LRUCache[object, object]) -> None:
    huge = kept(lambda seed: torch.full((50_000,), float(seed)))  # 200 kB
    small = kept(lambda seed: torch.full((10,), float(seed)))
    mine = small(1)
    assert huge(7)[0] == 7.0
    assert huge(7) is not huge(7)
    assert small(1) is mine
    assert cache.currsize == 40
