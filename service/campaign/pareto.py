"""Points that nothing dominates: no other is at least as good in every respect and better in one."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(costs: Sequence[tuple[float, ...]]) -> list[int]:
    """List the indices of the points that nothing dominates, by the first cost; of equal points all.

    Args:
        costs: For each point what it costs, small is good; all finite, equally many.
    """
    ordered = sorted(range(len(costs)), key=lambda index: costs[index])
    front: list[int] = []
    for index in ordered:  # whoever dominates a point comes before it
        if not any(_dominates(costs[other], costs[index]) for other in front):
            front.append(index)
    return front


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
