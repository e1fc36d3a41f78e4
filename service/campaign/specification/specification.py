"""The specification of a campaign: what a user asks for, complete and checked.

`parse` reads a document and finds every problem in it; `Specification.document` writes the canonical one, in which the
defaults of sections, tasks and search spaces are filled in, so that a newer release cannot change a running campaign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from spectune.search_spaces.json_values import json_pointer
from spectune.service.campaign.model.progress import planned_trials
from spectune.service.campaign.search.samplers import ADAPTIVE_SAMPLERS
from spectune.service.campaign.specification.catalog import Catalog, installed_catalog
from spectune.service.campaign.specification.made_explicit import completed_arms
from spectune.service.campaign.specification.reading import DEFAULTS, read_sections
from spectune.service.campaign.specification.sections import (
    ArmSection,
    BudgetSection,
    FinalsSection,
    InitialPointSection,
    ObjectiveSection,
    ResourcesSection,
    ScheduleSection,
    SearchSection,
    StoppingSection,
    TaskSection,
)
from spectune.service.campaign.stopping.rules import RULES, ChosenRule, RuleSetting
from spectune.service.errors import Problem

_TELLING_AUDIT = 10


class Specification(BaseModel):
    """A campaign that can be run; made by `parse`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: TaskSection
    objectives: tuple[ObjectiveSection, ...]  # one or two
    arms: tuple[ArmSection, ...]
    search: SearchSection
    schedule: ScheduleSection
    stopping: StoppingSection
    finals: FinalsSection | None
    precision: Literal["fp32", "bf16", "fp64"]
    arithmetic: Literal["fastest", "portable"]  # which instructions the processors of workers and driver use
    initial_points: tuple[InitialPointSection, ...]
    target: float | None  # the objective at which the campaign ends
    budget: BudgetSection
    resources: ResourcesSection
    verify_fusion: bool  # whether workers compare, now and then, a fused step with the step alone
    tags: dict[str, str]

    def document(self) -> dict[str, Any]:
        """Write the canonical document; reading it gives an equal specification."""
        document = self.model_dump(mode="json", exclude={"objectives"})
        objectives = [objective.model_dump(mode="json") for objective in self.objectives]
        return {**document, "objective": objectives[0] if len(objectives) == 1 else objectives}

    @property
    def objective(self) -> ObjectiveSection:
        """The objective; the first where there are two."""
        return self.objectives[0]

    def members(self) -> int | None:
        """Return how many trials train together in a worker; None where the first worker is to find it out.

        What is measured differs from run to run, and with it the rounding of a fused step: a deterministic campaign
        trains one trial at a time unless it is told a number.
        """
        if self.resources.members == "auto":
            return 1 if self.search.deterministic else None
        return self.resources.members

    def rungs(self) -> tuple[int, ...]:
        """Return the steps at which trials are compared, all before the end; empty if none is stopped."""
        rule = self.stopping_rule()
        return () if rule is None else rule.rungs()

    def stopping_rule(self, *, point_of: Callable[[int], int] = lambda trial: trial) -> ChosenRule | None:
        """Return the stopping rule; None if no trial is stopped.

        Args:
            point_of: Returns the index of a trial's point.
        """
        stopping = self.stopping
        if stopping.rule == "none" or stopping.min_steps is None:
            return None
        setting = RuleSetting(
            min_steps=stopping.min_steps,
            factor=stopping.reduction_factor or 1,
            every_steps=self._every,
            steps=self.task.steps,
            mode=self.objective.mode,
            is_deterministic=self.search.deterministic,
            point_of=point_of,
        )
        return ChosenRule(RULES[stopping.rule], setting)

    def expected_steps(self) -> float:
        """Return the steps of a trial of the search on average, as far as its stopping rule foretells them."""
        rule = self.stopping_rule()
        return float(self.task.steps) if rule is None else rule.expected_steps()

    def report_steps(self) -> tuple[int, ...]:
        """Return the steps at which a trial reports: the multiples of `every_steps`, the rungs and the last step."""
        steps = self.task.steps
        return tuple(sorted({*range(self._every, steps + 1, self._every), *self.rungs(), steps}))

    @property
    def _every(self) -> int:
        every = self.objective.every_steps
        assert every is not None, "parse fills it in: got None"
        return every

    @property
    def num_search_trials(self) -> int:
        """How many trials the search has at most: every point with every seed in every arm."""
        return self.search.points * self.search.seeds * len(self.arms)

    @property
    def trials_per_arm(self) -> int | None:
        """How many trials an arm may have in all: its equal share of the budget; None where there is no limit."""
        return None if self.budget.trials is None else self.budget.trials // len(self.arms)

    def initial_points_of(self, arm_index: int) -> list[dict[str, Any]]:
        """List the points that are tried first in an arm."""
        name = self.arms[arm_index].name
        return [point.config for point in self.initial_points if point.arm in (None, name)]

    def warnings(self) -> list[Problem]:
        """List what can be run but is probably not what is wanted."""
        warnings = self._rung_warnings() + self._sampler_warnings() + self._audit_warnings() + self._budget_warnings()
        warnings += self._arithmetic_warnings()
        for index, arm in enumerate(self.arms):
            warnings += _arm_warnings(arm, json_pointer("arms", index))
        return warnings

    def _rung_warnings(self) -> list[Problem]:
        rungs = self.rungs()
        if not rungs or 3 * rungs[0] >= self.task.steps or self.schedule.shape == "constant":
            return []
        message = (
            f"the first rung is below a third of the {self.task.steps} steps: while the learning rate is still high, "
            "rankings are not those of the end"
        )
        return [Problem("/stopping/min_steps", message, rungs[0])]

    def _sampler_warnings(self) -> list[Problem]:
        search = self.search
        sampler = ADAPTIVE_SAMPLERS.get(search.sampler)
        if sampler is None:
            return []
        needed = max(sampler.num_startup(arm.search_space, search.points) for arm in self.arms)
        if search.points > needed:
            return []
        message = f"{search.sampler} draws at random until {needed} points have ended, so this is random search"
        return [Problem("/search/points", message, search.points)]

    @property
    def trials_wanted_per_arm(self) -> int:
        """How many trials an arm has at most without a budget: search, finals and audit."""
        return planned_trials({**self.document(), "budget": {}}).total

    def _budget_warnings(self) -> list[Problem]:
        wanted = self.trials_wanted_per_arm
        if self.trials_per_arm is None or self.trials_per_arm >= wanted:
            return []
        message = f"an arm's share is {self.trials_per_arm} trials, but search, finals and audit may take {wanted}"
        return [Problem("/budget/trials", message, self.budget.trials)]

    def _arithmetic_warnings(self) -> list[Problem]:
        if not self.search.deterministic or self.arithmetic == "portable":
            return []
        message = "the campaign comes out the same only on processors or GPUs of one kind"
        return [Problem("/arithmetic", message, self.arithmetic)]

    def _audit_warnings(self) -> list[Problem]:
        if not 0 < self.stopping.audit < _TELLING_AUDIT:
            return []
        message = f"fewer than {_TELLING_AUDIT} finished trials tell little about how often stopping is wrong"
        return [Problem("/stopping/audit", message, self.stopping.audit)]


def parse(document: object, *, catalog: Catalog | None = None) -> Specification:
    """Read a specification.

    Args:
        document: JSON values, as a campaign file or a request holds them.
        catalog: What can be named; by default what is installed.

    Raises:
        SpecificationError: With every problem that was found.
    """
    return Specification(**read_sections(document, catalog=catalog or installed_catalog()))


def foreseen_resources(document: object) -> ResourcesSection | None:
    """Return what a campaign's workers would need, before the rest of its document is checked; None if in doubt."""
    if not isinstance(document, Mapping) or not isinstance(document.get("name"), str):
        return None
    try:
        return ResourcesSection.model_validate(document.get("resources") or {})
    except ValidationError:
        return None


def is_portable_foreseen(document: Mapping[str, Any]) -> bool:
    """Return whether a campaign's arithmetic would be portable, before anything of its document is checked."""
    given, search, resources = (document.get(key) for key in ("arithmetic", "search", "resources"))
    if given is not None:
        return bool(given == "portable")
    is_deterministic = isinstance(search, Mapping) and search.get("deterministic") is True
    return is_deterministic and not (isinstance(resources, Mapping) and resources.get("gpus"))


def restore(document: Mapping[str, Any]) -> Specification:
    """Read the canonical document of a campaign that was accepted before, as a ledger keeps it.

    Nothing is checked against what is installed or on this disk: a campaign can be looked at when its corpus is gone.
    What documents did not name when it was accepted is completed with what it meant then.
    """
    given = document["objective"]
    objectives = given if isinstance(given, list) else [given]
    sections = {key: value for key, value in document.items() if key != "objective"}
    specification = Specification.model_validate({**DEFAULTS, **sections, "objectives": objectives})
    on_gpu = bool(specification.resources.gpus)
    arms = completed_arms(specification.arms, precision=specification.precision, on_gpu=on_gpu, are_stored=True)
    return specification.model_copy(update={"arms": arms})


def _arm_warnings(arm: ArmSection, pointer: str) -> list[Problem]:
    warnings = []
    space = arm.search_space
    for name in ("lr", "adamw_lr"):
        domain = space.get(name)
        scale = None if domain is None else domain.scale()
        if domain is not None and scale is not None and not (scale.is_log and 0 not in domain.extremes()):
            message = "a learning rate is best searched on a log scale (log_uniform)"
            warnings.append(Problem(pointer + json_pointer("space", name), message, domain.document()))
    percentile: Mapping[str, Any] = {
        json_pointer("fixed", "percentile"): arm.fixed.get("percentile"),
        json_pointer("space", "percentile"): _only_value(arm, "percentile"),
    }
    for place, value in percentile.items():
        if arm.optimizer == "root" and value == 1:
            warnings.append(Problem(pointer + place, "clips nothing, so that ROOT has no outlier suppression", value))
    return warnings


def _only_value(arm: ArmSection, name: str) -> Any:
    domain = arm.search_space.get(name)
    values = domain.extremes() if domain is not None else ()
    return values[0] if len(values) == 1 else None
