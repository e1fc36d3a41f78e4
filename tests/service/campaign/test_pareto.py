"""Fronts against their definition."""

from __future__ import annotations

import random

from spectune.service.campaign.analysis.pareto import pareto_front


def _by_definition(costs: list[tuple[float, ...]]) -> set[int]:
    def dominates(other: tuple[float, ...], mine: tuple[float, ...]) -> bool:
        pairs = list(zip(other, mine, strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    return {index for index, mine in enumerate(costs) if not any(dominates(other, mine) for other in costs)}


def test_a_front_is_what_nothing_dominates() -> None:
    generator = random.Random(0)
    for dimension in (1, 2, 3):
        costs = [tuple(float(generator.randrange(6)) for _ in range(dimension)) for _ in range(60)]
        assert set(pareto_front(costs)) == _by_definition(costs)


def test_a_front_is_ordered_by_its_first_cost_and_keeps_equal_points() -> None:
    assert pareto_front([(2.0, 1.0), (1.0, 2.0), (2.0, 1.0), (2.0, 2.0)]) == [1, 0, 2]
    assert pareto_front([]) == []
