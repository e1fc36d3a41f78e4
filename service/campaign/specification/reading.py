"""Reading a whole specification, so that one visit finds every problem.

A section that cannot be read does not keep the others from being checked; what depends on two sections is checked where
both could be read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from spectune.search_spaces.json_values import is_number, json_pointer
from spectune.service.campaign.specification.arms import read_arms
from spectune.service.campaign.specification.catalog import Catalog, RefusedOptionError, TaskDescription
from spectune.service.campaign.specification.consistency import (
    check_amounts,
    check_objectives,
    check_resources,
    check_search,
)
from spectune.service.campaign.specification.made_explicit import completed_arms
from spectune.service.campaign.specification.problem_list import ProblemList, json_problems
from spectune.service.campaign.specification.sections import (
    ARITHMETICS,
    PRECISIONS,
    ArmSection,
    BudgetSection,
    FinalsSection,
    InitialPointSection,
    ObjectiveSection,
    ResourcesSection,
    ScheduleSection,
    SearchSection,
    Section,
    StoppingSection,
    TaskSection,
)
from spectune.service.campaign.specification.unsearched import check_no_domains, explain_options
from spectune.service.campaign.stopping.rules import RULES
from spectune.service.errors import SpecificationError

_NEEDED = ("name", "task", "objective", "arms", "search")
DEFAULTS: Mapping[str, Any] = {
    "schedule": {},
    "stopping": {},
    "finals": None,
    "precision": "fp32",
    "arithmetic": "fastest",
    "initial_points": [],
    "target": None,
    "budget": {},
    "resources": {},
    "verify_fusion": False,
    "tags": {},
}
_LONGEST_NAME = 200
_LONGEST_TAG = 5000  # characters; MLflow 3.17 keeps 8000
_TAG_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.\-]{0,98}[A-Za-z0-9])?", re.ASCII)  # narrower than MLflow's
_RESERVED_TAGS = frozenset(
    {"campaign", "kind", "state", "reason", "message", "arm", "trial", "point", "attempt", "phase", "timing_valid"}
)
_MOST_REPORTS = 10_000  # of a trial
_NUM_REPORTS = 20  # reports per trial where `every_steps` is not given
_REDUCTION_FACTOR = 3


_S = TypeVar("_S", bound=Section)


def read_sections(document: object, *, catalog: Catalog) -> dict[str, Any]:
    """Read all sections of a specification, defaults filled in.

    Raises:
        SpecificationError: With every problem that was found.
    """
    found = ProblemList()
    for problem in json_problems(document):
        found.add(problem.pointer, problem.message, problem.value)
    if found.problems:  # what is no JSON is not looked at any further
        raise SpecificationError(found.problems)
    if not isinstance(document, Mapping):
        found.add("", "a mapping is needed", document)
        raise SpecificationError(found.problems)
    sections = _Reading(document, catalog, found).sections()
    if found.problems:
        raise SpecificationError(found.problems)
    on_gpu = bool(sections["resources"].gpus)
    return {**sections, "arms": completed_arms(sections["arms"], precision=sections["precision"], on_gpu=on_gpu)}


class _Reading:
    """One reading of one document; what cannot be read is None, and a problem."""

    def __init__(self, document: Mapping[str, Any], catalog: Catalog, found: ProblemList) -> None:
        self._document = {**DEFAULTS, **{key: value for key, value in document.items() if value is not None}}
        self._gives_arithmetic = document.get("arithmetic") is not None
        self._catalog = catalog
        self._found = found

    def sections(self) -> dict[str, Any]:
        self._check_keys()
        task = self._read("task", TaskSection) if check_no_domains(self._document, "task", self._found) else None
        description = self._describe(task) if task else None
        arms = self._arms(task)
        explain_options(description.options if description else {}, self._found)
        search = self._read("search", SearchSection)
        initial_points = self._initial_points(arms, search)
        objectives = self._objectives(task, description)
        stopping = self._stopping(task)
        if search:
            check_search(search, arms, initial_points, self._found)
        finals = self._read("finals", FinalsSection) if self._document["finals"] is not None else None
        budget = self._read("budget", BudgetSection)
        if search:
            check_amounts(search, len(arms), finals, budget, self._found)
        resources = self._read("resources", ResourcesSection)
        if resources:
            check_resources(resources, self._catalog.num_gpus, self._found)
        if objectives:
            check_objectives(objectives, search, stopping, finals, self._found)
        return {
            "name": self._name(),
            "task": task.with_options(description.options) if task and description else None,
            "objectives": objectives,
            "arms": tuple(arms),
            "search": search,
            "schedule": self._schedule(),
            "stopping": stopping,
            "finals": finals,
            "precision": self._precision(),
            "arithmetic": self._arithmetic(search, resources),
            "initial_points": initial_points,
            "target": self._target(),
            "budget": budget,
            "resources": resources,
            "verify_fusion": self._verify_fusion(),
            "tags": self._tags(),
        }

    def _has(self, key: str) -> bool:
        return key in self._document

    def _check_keys(self) -> None:
        for key in self._document:
            if key not in (*_NEEDED, *DEFAULTS):
                self._found.add_unknown(json_pointer(key), "key", key, (*_NEEDED, *DEFAULTS))
        for key in _NEEDED:
            if not self._has(key):
                self._found.add(json_pointer(key), "missing")

    def _read(self, key: str, model: type[_S]) -> _S | None:
        return self._found.read(model, self._document[key], json_pointer(key)) if self._has(key) else None

    def _name(self) -> Any:
        name = self._document.get("name")
        if self._has("name") and (not isinstance(name, str) or not 1 <= len(name.strip()) <= _LONGEST_NAME):
            self._found.add("/name", f"a name of 1 to {_LONGEST_NAME} characters is needed", name)
        return name

    def _precision(self) -> Any:
        precision = self._document["precision"]
        if precision not in PRECISIONS:
            self._found.add_unknown("/precision", "precision", str(precision), PRECISIONS)
        return precision

    def _arithmetic(self, search: SearchSection | None, resources: ResourcesSection | None) -> Any:
        """Read which instructions processors use: the portable ones, if not given, for a deterministic campaign."""
        is_on_gpus = resources is not None and resources.gpus > 0
        if not self._gives_arithmetic:
            is_portable = search is not None and search.deterministic and not is_on_gpus
            return "portable" if is_portable else "fastest"
        arithmetic = self._document["arithmetic"]
        if arithmetic not in ARITHMETICS:
            self._found.add_unknown("/arithmetic", "arithmetic", str(arithmetic), ARITHMETICS)
        elif arithmetic == "portable" and is_on_gpus:
            self._found.add("/arithmetic", "only processors have a portable arithmetic, not GPUs", arithmetic)
        return arithmetic

    def _target(self) -> Any:
        target = self._document["target"]
        if target is not None and not is_number(target):
            self._found.add("/target", "a number is needed: the objective at which the campaign ends", target)
        return target

    def _verify_fusion(self) -> Any:
        verify = self._document["verify_fusion"]
        if not isinstance(verify, bool):
            self._found.add("/verify_fusion", "true or false is needed", verify)
        return verify

    def _tags(self) -> Any:
        tags = self._document["tags"]
        if not isinstance(tags, Mapping):
            self._found.add("/tags", "a mapping is needed", tags)
            return None
        for name, value in tags.items():
            if not isinstance(value, str) or len(value) > _LONGEST_TAG:
                self._found.add(json_pointer("tags", name), f"text is needed, at most {_LONGEST_TAG} characters", value)
            elif name in _RESERVED_TAGS or name.startswith("mlflow."):
                self._found.add(json_pointer("tags", name), "this tag is the service's own", name)
            elif not _TAG_NAME.fullmatch(name):
                message = "a tag's name is 1 to 100 letters, digits and _ - . between letters or digits"
                self._found.add(json_pointer("tags", name), message, name)
        return dict(tags)

    def _arms(self, task: TaskSection | None) -> list[ArmSection | None]:
        if not self._has("arms"):
            return []
        preset = task.options.get("preset") if task else None
        known = preset if isinstance(preset, str) else ""  # anything else is a mistake that the task tells of
        return read_arms(self._document["arms"], preset=known, catalog=self._catalog, found=self._found)

    def _describe(self, task: TaskSection) -> TaskDescription | None:
        if ":" not in task.name and task.name not in self._catalog.tasks:  # with a colon it is a user's own
            self._found.add_unknown("/task/name", "task", task.name, self._catalog.tasks)
            return None
        try:
            return self._catalog.describe_task(task.name, task.options)
        except RefusedOptionError as error:
            self._found.add(json_pointer("task", error.option), error.message, error.value)
            return None

    def _objectives(
        self, task: TaskSection | None, description: TaskDescription | None
    ) -> tuple[ObjectiveSection, ...]:
        """Read one objective or a list of two; empty where one of them cannot be read."""
        document = self._document.get("objective", {})
        if not isinstance(document, list | tuple):
            objective = self._objective(document, "/objective", task, description) if self._has("objective") else None
            return (objective,) if objective else ()
        if len(document) != 2:
            self._found.add("/objective", "one objective or a list of two is needed", list(document))
            return ()
        places = [json_pointer("objective", index) for index in range(2)]
        read = [self._objective(each, at, task, description) for each, at in zip(document, places, strict=True)]
        first, second = read
        if first is None or second is None:
            return ()
        if first.metric == second.metric:
            self._found.add(places[1] + "/metric", "this is the first objective already", second.metric)
        given = [each.get("every_steps") for each in document]
        if given[1] is not None and given[1] != first.every_steps:
            self._found.add(places[1] + "/every_steps", "both are reported together: give it to the first", given[1])
        return first, second.model_copy(update={"every_steps": first.every_steps})

    def _objective(
        self, document: Any, place: str, task: TaskSection | None, description: TaskDescription | None
    ) -> ObjectiveSection | None:
        objective = self._found.read(ObjectiveSection, document, place)
        if objective and description and objective.metric not in description.metrics:
            message = "metric: the task never reports it"
            self._found.add_unknown(place + "/metric", message, objective.metric, description.metrics)
        if objective is None or task is None:
            return objective
        if objective.every_steps is None:
            return objective.model_copy(update={"every_steps": -(-task.steps // _NUM_REPORTS)})
        if objective.every_steps > task.steps:
            message = f"must be at most the task's {task.steps} steps"
            self._found.add(place + "/every_steps", message, objective.every_steps)
        elif task.steps // objective.every_steps > _MOST_REPORTS:
            message = f"gives more than {_MOST_REPORTS} reports of a trial of {task.steps} steps"
            self._found.add(place + "/every_steps", message, objective.every_steps)
        return objective

    def _schedule(self) -> ScheduleSection | None:
        if not check_no_domains(self._document, "schedule", self._found):
            return None
        schedule = self._read("schedule", ScheduleSection)
        if schedule:
            try:
                self._catalog.check_schedule(schedule.given)
            except RefusedOptionError as error:
                self._found.add(json_pointer("schedule", error.option), error.message, error.value)
        return schedule

    def _stopping(self, task: TaskSection | None) -> StoppingSection | None:
        stopping = self._read("stopping", StoppingSection)
        if stopping is None:
            return None
        if stopping.rule == "none":
            for option in ("min_steps", "reduction_factor", "audit"):
                if (value := getattr(stopping, option)) not in (None, 0):
                    self._found.add(json_pointer("stopping", option), "the rule 'none' does not take it", value)
            return stopping
        if stopping.min_steps is None:
            self._found.add("/stopping/min_steps", "missing: the rule needs the step of its first rung")
        elif task and stopping.min_steps >= task.steps:
            message = f"must be below the task's {task.steps} steps"
            self._found.add("/stopping/min_steps", message, stopping.min_steps)
        if RULES[stopping.rule].takes_factor:
            return stopping.model_copy(update={"reduction_factor": stopping.reduction_factor or _REDUCTION_FACTOR})
        if stopping.reduction_factor is not None:
            message = f"the rule '{stopping.rule}' does not take it"
            self._found.add("/stopping/reduction_factor", message, stopping.reduction_factor)
        return stopping

    def _initial_points(
        self, arms: Sequence[ArmSection | None], search: SearchSection | None
    ) -> tuple[InitialPointSection | None, ...]:
        document = self._document["initial_points"]
        if not isinstance(document, list | tuple):
            self._found.add("/initial_points", "a list is needed", document)
            return ()
        points = [
            self._found.read(InitialPointSection, each, json_pointer("initial_points", index))
            for index, each in enumerate(document)
        ]
        if self._found.is_clear("/arms"):
            for index, point in enumerate(points):
                if point is not None:
                    self._check_initial_point(
                        point, json_pointer("initial_points", index), [arm for arm in arms if arm]
                    )
        if search and len(points) > search.points:
            self._found.add("/initial_points", f"more than the {search.points} points of an arm", len(points))
        return tuple(points)

    def _check_initial_point(self, point: InitialPointSection, pointer: str, arms: Sequence[ArmSection]) -> None:
        meant = [arm for arm in arms if point.arm in (None, arm.name)]
        if not meant:
            self._found.add_unknown(pointer + "/arm", "arm", str(point.arm), [arm.name for arm in arms])
        for arm in meant:
            for name, problem in arm.search_space.problems_with(point.config):
                message = f"{problem} (arm {arm.name!r})"
                self._found.add(pointer + json_pointer("config", name), message, point.config.get(name))
