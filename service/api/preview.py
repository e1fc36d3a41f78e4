"""What a campaign would do and cost: its points, how trials would train together, an estimate where one is honest.

Nothing is trained to find it out. How many trials train together, and how long a step takes, is known from the caller's
earlier campaigns of the same task and optimizer, whose workers have measured it; where there is none, it is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import Request
from pydantic import BaseModel, Field

from spectune.service.api.context import caller_of, context_of
from spectune.service.api.examples import SPECIFICATION
from spectune.service.api.request_body import Body
from spectune.service.api.routing import Route
from spectune.service.api.submission_request import read_submission
from spectune.service.campaign.model.progress import planned_trials
from spectune.service.campaign.search.samplers import ADAPTIVE_SAMPLERS
from spectune.service.campaign.specification.specification import Specification
from spectune.service.campaign.study import arm_study
from spectune.service.ledger import ServiceLedger
from spectune.service.ledger.access import Role

_MOST_LOOKED_AT = 50  # of the caller's latest campaigns
_MOST_SHOWN = 256  # points of an arm


class ArmPlan(BaseModel):
    """How the trials of an arm would train."""

    arm: str
    members: int | None = Field(description="trials that train as one; null where the first worker finds it out")
    seconds_per_step: float | None = Field(description="of one trial, among so many; null where nobody has measured it")
    why: str = Field(examples=["as campaign muon-or-adamw-c069ac189f measured it"])


class ArmPoints(BaseModel):
    """What an arm would try."""

    arm: str
    configurations: list[dict[str, Any]] | None = Field(
        description=f"in their order, the first {_MOST_SHOWN} at most; null where the sampler waits for what comes out"
    )


class Estimate(BaseModel):
    """What a campaign would take, without evaluation and start."""

    steps: int = Field(description="of all trials, if at each rung as many are stopped as the rule stops")
    device_seconds: float | None = Field(description="null where the step of an arm is not known")
    wall_seconds: float | None = Field(description="the same, shared by the workers")


class Preview(BaseModel):
    """What a campaign would do; nothing is stored."""

    specification: dict[str, Any]
    warnings: list[str]
    num_points: int
    num_trials: int = Field(description="of the search")
    num_trials_beyond: int = Field(description="finals and audits, at most")
    points: list[ArmPoints]
    rungs: list[int]
    report_steps: list[int]
    most_steps: int = Field(description="steps of all trials if none is stopped early")
    num_cpus: int
    fusion: list[ArmPlan]
    estimate: Estimate


def preview(request: Request, body: Body) -> Preview:
    """Return what a campaign would do and, where that is known, how long it would take, without storing anything."""
    context, caller = context_of(request), caller_of(request)
    _, specification = read_submission(context, body)
    owner = None if caller.role is Role.ADMIN else caller.owner
    plans = list(_plans(specification, context.ledger, owner))
    resources, num_arms = specification.resources, len(specification.arms)
    planned = planned_trials(specification.document())
    num_trials, num_beyond = num_arms * planned.search, num_arms * planned.beyond
    return Preview(
        specification=specification.document(),
        warnings=[f"{warning.pointer}: {warning.message}" for warning in specification.warnings()],
        num_points=num_trials // specification.search.seeds,
        num_trials=num_trials,
        num_trials_beyond=num_beyond,
        points=[_points(specification, index) for index in range(num_arms)],
        rungs=list(specification.rungs()),
        report_steps=list(specification.report_steps()),
        most_steps=(num_trials + num_beyond) * specification.task.steps,
        num_cpus=resources.workers * resources.cpus,
        fusion=plans,
        estimate=_estimate(specification, plans),
    )


def _points(specification: Specification, index: int) -> ArmPoints:
    name = str(specification.arms[index].name)
    if specification.search.sampler in ADAPTIVE_SAMPLERS:
        return ArmPoints(arm=name, configurations=None)
    num_points = planned_trials(specification.document()).search // specification.search.seeds
    study = arm_study(specification, index)
    asked = (study.ask() for _ in range(min(_MOST_SHOWN, num_points)))
    return ArmPoints(arm=name, configurations=[dict(point.config) for point in asked if point is not None])


def _plans(specification: Specification, ledger: ServiceLedger, owner: str | None) -> Iterator[ArmPlan]:
    known = _measured(specification, ledger, owner)
    told = specification.members()
    for arm in specification.arms:
        plan = known.get(str(arm.optimizer))
        if plan is None:
            why = "the first worker finds it out" if told is None else "as the specification says"
            yield ArmPlan(arm=str(arm.name), members=told, seconds_per_step=None, why=why)
            continue
        campaign_id, body = plan
        members = int(body["members"]) if told is None else told
        seconds = body["seconds_per_member_step"].get(str(members))
        why = f"as campaign {campaign_id} measured it"
        yield ArmPlan(arm=str(arm.name), members=members, seconds_per_step=seconds, why=why)


def _measured(
    specification: Specification, ledger: ServiceLedger, owner: str | None
) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Find the latest plan of each optimizer for the same task, with the campaign that made it."""
    task, optimizers = _kind(specification.document()), {str(arm.optimizer) for arm in specification.arms}
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    latest = [each.campaign for each in ledger.submissions(limit=_MOST_LOOKED_AT, owner=owner)]
    alike = [campaign for campaign in latest if _kind(campaign.specification) == task]
    plans = ledger.plans([campaign.campaign_id for campaign in alike]) if alike else {}
    for campaign in alike:
        for plan in plans.get(campaign.campaign_id, []):
            optimizer = campaign.specification["arms"][plan["arm"]]["optimizer"]
            if plan["seconds_per_member_step"]:
                found.setdefault(optimizer, (campaign.campaign_id, plan))
        if optimizers <= found.keys():
            break
    return found


def _kind(specification: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what decides how long a step takes: everything of the task but how many steps there are."""
    task = {name: value for name, value in specification["task"].items() if name != "steps"}
    return task, specification.get("precision"), specification["resources"].get("cpus")


def _estimate(specification: Specification, plans: Sequence[ArmPlan]) -> Estimate:
    planned = planned_trials(specification.document())
    per_arm = round(specification.expected_steps() * planned.search) + planned.beyond * specification.task.steps
    seconds = [plan.seconds_per_step for plan in plans]
    known = [each for each in seconds if each is not None]
    total = per_arm * sum(known) if len(known) == len(seconds) else None
    return Estimate(
        steps=per_arm * len(plans),
        device_seconds=total,
        wall_seconds=None if total is None else total / specification.resources.workers,
    )


ROUTES = (Route("POST", "/v1/campaigns:preview", preview, Role.VIEWER, Preview, example=SPECIFICATION),)
