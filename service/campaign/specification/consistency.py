"""Checks of a specification that need several of its sections at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from spectune.search_spaces import Space
from spectune.search_spaces.json_values import json_pointer
from spectune.service.campaign.model.points import fingerprint
from spectune.service.campaign.search.samplers import ADAPTIVE_SAMPLERS, points_problem, space_problem
from spectune.service.campaign.specification.problem_list import ProblemList
from spectune.service.campaign.specification.sections import (
    ArmSection,
    BudgetSection,
    FinalsSection,
    InitialPointSection,
    ObjectiveSection,
    ResourcesSection,
    SearchSection,
    StoppingSection,
)


def check_search(
    search: SearchSection,
    arms: Sequence[ArmSection | None],
    initial_points: Sequence[InitialPointSection | None],
    found: ProblemList,
) -> None:
    """Refuse what the sampler cannot do with the arms' spaces."""
    if search.levels is not None and search.sampler != "grid":
        found.add("/search/levels", f"the sampler {search.sampler!r} does not take it; grid does", search.levels)
    if problem := points_problem(search.sampler, search.points):
        found.add("/search/points", problem, search.points)
    if not found.is_clear("/arms"):
        return
    for index, arm in enumerate(arms):
        if arm is None:
            continue
        place = json_pointer("arms", index, "space")
        if problem_there := space_problem(search.sampler, arm.search_space, num_levels=search.levels):
            name, message = problem_there
            found.add(place + (json_pointer(name) if name else ""), message, arm.space[name] if name else arm.name)
        elif search.sampler == "grid" and found.is_clear("/initial_points"):
            first = [point.config for point in initial_points if point and point.arm in (None, arm.name)]
            _check_grid(search, arm.search_space, first, place, found)


def check_objectives(
    objectives: Sequence[ObjectiveSection],
    search: SearchSection | None,
    stopping: StoppingSection | None,
    finals: FinalsSection | None,
    found: ProblemList,
) -> None:
    """Refuse what takes another number of objectives: samplers, stopping rules, finals."""
    if finals and len(objectives) > 1:
        found.add("/finals", "with two objectives no point is the best: the report gives the Pareto front", finals.keep)
    sampler = ADAPTIVE_SAMPLERS.get(search.sampler) if search else None
    if search and sampler and sampler.num_objectives != len(objectives):
        needed = "two objectives" if sampler.num_objectives == 2 else "one objective"
        found.add("/search/sampler", f"this sampler needs {needed}, not {len(objectives)}", search.sampler)
    if stopping and stopping.rule != "none" and len(objectives) > 1:
        found.add("/stopping/rule", "with two objectives no trial is stopped early: give 'none'", stopping.rule)


def check_amounts(
    search: SearchSection, num_arms: int, finals: FinalsSection | None, budget: BudgetSection | None, found: ProblemList
) -> None:
    """Refuse finals of more points than there are, and a budget that cannot hold one point of every arm."""
    if finals and finals.keep > search.points:
        found.add("/finals/keep", f"more than the {search.points} points of an arm", finals.keep)
    least = num_arms * search.seeds
    if budget and budget.trials is not None and budget.trials < least:
        message = f"must be at least {least}, or not every arm could try one point"
        found.add("/budget/trials", message, budget.trials)


def check_resources(resources: ResourcesSection, num_gpus: int | None, found: ProblemList) -> None:
    """Refuse more GPUs than there are: some workers would wait for ever."""
    if num_gpus is not None and resources.workers * resources.gpus > num_gpus:
        message = f"this machine has {num_gpus} for all {resources.workers} workers"
        found.add("/resources/gpus", message, resources.gpus)


def _check_grid(
    search: SearchSection, space: Space, first: Sequence[Mapping[str, Any]], place: str, found: ProblemList
) -> None:
    """Refuse a grid that is larger than its budget; initial points that lie on it count once."""
    grid = {fingerprint(config) for config in islice(space.grid(search.levels or 2), search.points + 1)}
    needed = len(grid | {fingerprint(space.completed(config)) for config in first})
    if needed > search.points:
        size = str(needed) if len(grid) <= search.points else f"more than {search.points}"
        beside = " with the initial ones" if first else ""
        found.add("/search/points", f"too few: the grid of {place} has {size} points{beside}", search.points)
