"""What cannot be searched yet, told in a sentence where somebody asks for it: options of the task, and the schedule."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from spectune.search_spaces.json_values import json_pointer
from spectune.search_spaces.parsing import looks_like_domain
from spectune.service.campaign.specification.problem_list import ProblemList

_WHAT = {"task": "options of a task cannot be searched yet", "schedule": "a schedule cannot be searched yet"}
_WHERE = "only an optimizer's hyperparameters can, in the space of an arm"
_IN_SPACE = re.compile(r"/arms/\d+/space/")


def check_no_domains(document: Mapping[str, Any], section: str, found: ProblemList) -> bool:
    """Refuse domains where a section's values stand; return whether there are none.

    Args:
        document: The specification.
        section: "task" or "schedule".
        found: Takes the problems.
    """
    given = document.get(section)
    domains = {
        name: value for name, value in (given.items() if isinstance(given, Mapping) else ()) if looks_like_domain(value)
    }
    for name, value in domains.items():
        found.add(json_pointer(section, name), f"{_WHAT[section]}; {_WHERE}", value)
    return not domains


def explain_options(options: Collection[str], found: ProblemList) -> None:
    """Say of unknown names in an arm's space that are options of the task why they are not known there.

    Args:
        options: The task's.
        found: The problems so far.
    """
    for index, problem in enumerate(found.problems):
        if _IN_SPACE.match(problem.pointer) and isinstance(problem.value, str) and problem.value in options:
            found.problems[index] = replace(problem, message=f"{problem.message}; {_WHAT['task']}")
