"""Trials, their curves, the standings of arms, the best point, the driver's log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Path, Query, Request, Response
from fastapi.responses import PlainTextResponse

from spectune.service.api.campaigns import find
from spectune.service.api.context import context_of
from spectune.service.api.cursors import decode, encode
from spectune.service.api.routing import CAMPAIGN, Route
from spectune.service.api.schemas import Best, Curves, FrontPoint, Leaderboard, Trial, TrialPage
from spectune.service.api.serializers import (
    front_document,
    point_document,
    report_document,
    standing_document,
    trial_document,
)
from spectune.service.campaign.analysis.best import TWO_OBJECTIVES, campaign_ranking, how_obtained
from spectune.service.campaign.analysis.comparability import lacking_sentence
from spectune.service.campaign.analysis.leaderboard import ArmStanding
from spectune.service.campaign.analysis.pareto import campaign_front
from spectune.service.campaign.model.clean_text import clean_text
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.progress import Tally
from spectune.service.campaign.model.records import Phase
from spectune.service.campaign.model.submission import Submission
from spectune.service.campaign.specification.specification import restore
from spectune.service.errors import Problem, SpecificationError
from spectune.service.ledger import ServiceLedger
from spectune.service.ledger.access import Role
from spectune.service.ledger.pages import TrialOrder, trial_key

TrialNumber = Annotated[int, Path(ge=0, lt=2**31)]
_CURSOR_TYPES: dict[str, tuple[type, ...]] = {"number": (int,)}
_BY_OBJECTIVE = (int, float, int)
_MOST_LOG_BYTES = 256 * 1024


def list_trials(
    request: Request,
    campaign_id: str,
    state: Annotated[list[TrialState], Query(description="Only in these states.")] = [],  # noqa: B006
    arm: Annotated[str | None, Query(max_length=60, description="Only of the arm of this name.")] = None,
    phase: Annotated[Phase | None, Query(description="Only of the search, the finals or the audit.")] = None,
    order_by: TrialOrder = "number",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=1000)] = None,
) -> TrialPage:
    """List trials, a page at a time; those without a finite objective come last in its order."""
    arms = _arms(find(request, campaign_id))
    if arm is not None and arm not in arms:
        raise SpecificationError([Problem("arm", "the campaign has no arm of this name")])
    found = context_of(request).ledger.trial_page(
        campaign_id,
        limit=limit,
        after=decode(cursor, order_by=order_by, like=_CURSOR_TYPES.get(order_by, _BY_OBJECTIVE)),
        order_by=order_by,
        states=state,
        arm=None if arm is None else arms.index(arm),
        phase=phase,
    )
    return TrialPage(
        trials=[trial_document(each, arms, campaign_id=campaign_id) for each in found],
        next_cursor=encode(order_by, trial_key(found[-1], order_by)) if len(found) == limit else None,
    )


def read_trial(request: Request, campaign_id: str, number: TrialNumber) -> Trial:
    """Read one trial."""
    arms = _arms(find(request, campaign_id))
    return trial_document(context_of(request).ledger.trial(campaign_id, number), arms, campaign_id=campaign_id)


def stop_trial(request: Request, campaign_id: str, number: TrialNumber) -> Trial:
    """End one trial: it is CANCELLED when it next reports, or before it begins; the search learns nothing from it."""
    arms, context = _arms(find(request, campaign_id)), context_of(request)
    context.ledger.ask_to_stop(campaign_id, number)
    return trial_document(context.ledger.trial(campaign_id, number), arms, campaign_id=campaign_id)


def read_curves(
    request: Request,
    campaign_id: str,
    number: TrialNumber,
    names: Annotated[list[str], Query(description="Only these metrics.")] = [],  # noqa: B006
    downsample: Annotated[int | None, Query(ge=2, le=10_000, description="At most so many reports.")] = None,
) -> Curves:
    """Read what a trial reported, by step; the first and the last report are always among those that are kept."""
    find(request, campaign_id)
    ledger = context_of(request).ledger
    ledger.trial(campaign_id, number)
    reports = [report_document(each) for each in ledger.observations_of(campaign_id, number)]
    if downsample is not None and len(reports) > downsample:
        last = len(reports) - 1
        reports = [reports[round(index * last / (downsample - 1))] for index in range(downsample)]
    if names:
        for report in reports:
            report.metrics = {name: value for name, value in report.metrics.items() if name in names}
    return Curves(trial=number, observations=reports)


def read_leaderboard(
    request: Request,
    response: Response,
    campaign_id: str,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many points of each arm.")] = 20,
) -> Leaderboard:
    """Rank the completed points of each arm."""
    submission = find(request, campaign_id)
    standings = context_of(request).standings.of(context_of(request).ledger, submission)
    arms = submission.campaign.specification["arms"]
    response.headers["ETag"] = f'"{submission.campaign.sequence}"'
    return Leaderboard(
        **_objective(submission),
        at_step=submission.campaign.specification["task"]["steps"],
        arms=[standing_document(arms[each.arm], each, limit=limit) for each in standings],
    )


def read_best(request: Request, campaign_id: str) -> Best:
    """Read the best completed point of all arms or, with two objectives, the points that no other dominates."""
    submission = find(request, campaign_id)
    standings = context_of(request).standings.of(context_of(request).ledger, submission)
    arms = submission.campaign.specification["arms"]
    objective = _objective(submission)
    tallies = _tallies(request, submission)
    lacking = lacking_sentence(submission.campaign, tallies)
    if isinstance(submission.campaign.specification["objective"], list):
        front = _front(context_of(request).ledger, submission, standings)
        return Best(
            **objective, phase=Phase.SEARCH, lacking=lacking, best=None, why_no_best=TWO_OBJECTIVES, front=front
        )
    ranking = campaign_ranking(submission.campaign, standings, tallies)
    best = ranking.best
    return Best(
        **(objective if best is None else objective | {"how": best.how}),
        phase=ranking.phase,
        lacking=lacking,
        best=None if best is None else point_document(arms[best.arm], best.standing),
        why_no_best=ranking.why_none,
        front=[],
    )


def _tallies(request: Request, submission: Submission) -> Sequence[Tally]:
    """Count the trials of a campaign that has ended; of one that goes on, no arm is said to lack any."""
    if not submission.campaign.state.is_terminal:
        return ()
    context = context_of(request)
    return context.summaries.of(context.ledger, [submission], standings=context.standings)[
        submission.campaign_id
    ].tallies


def _front(ledger: ServiceLedger, submission: Submission, standings: Sequence[ArmStanding]) -> list[FrontPoint]:
    campaign = submission.campaign
    specification = restore(campaign.specification)
    trials, observations = ledger.trials(campaign.campaign_id), ledger.observations(campaign.campaign_id)
    configs = {(each.arm, point.point): point.config for each in standings for point in each.ranked}
    return [
        front_document(campaign.specification["arms"][each.arm], each, configs[each.arm, each.point])
        for each in campaign_front(specification, standings, trials, observations)
    ]


def read_log(
    request: Request,
    campaign_id: str,
    trial: Annotated[int | None, Query(ge=0, le=2**31 - 1, description="Only what its code printed.")] = None,
) -> PlainTextResponse:
    """Read the end of what the last attempt's driver printed, and what the code of trials printed in workers."""
    find(request, campaign_id)
    context = context_of(request)
    printed = context.worker_output(campaign_id, trial)
    if trial is not None:
        return PlainTextResponse(printed)
    for attempt in reversed(context.ledger.attempts(campaign_id)):
        log = context.driver_log(campaign_id, attempt.number)
        if log is not None:
            text = clean_text(log[-_MOST_LOG_BYTES:].decode("utf-8", errors="replace"), longest=_MOST_LOG_BYTES)
            return PlainTextResponse("\n".join(filter(None, [text, printed])))
    return PlainTextResponse(printed)


def _arms(submission: Submission) -> list[str]:
    return [arm["name"] for arm in submission.campaign.specification["arms"]]


def _objective(submission: Submission) -> dict[str, Any]:
    """Describe what points are ranked by; the first of two objectives."""
    campaign = submission.campaign
    how = how_obtained(Phase.SEARCH, num_seeds=campaign.specification["search"]["seeds"])
    if len(campaign.objectives) > 1:
        how += f"; by the first of two objectives: {TWO_OBJECTIVES}"
    return {"metric": campaign.objective["metric"], "mode": campaign.objective["mode"], "how": how}


_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
ROUTES = (
    Route("GET", CAMPAIGN + "/trials", list_trials, Role.VIEWER, TrialPage),
    Route("GET", CAMPAIGN + "/trials/{number:int}", read_trial, Role.VIEWER, Trial),
    Route("GET", CAMPAIGN + "/trials/{number:int}/metrics", read_curves, Role.VIEWER, Curves),
    Route("POST", CAMPAIGN + "/trials/{number:int}:stop", stop_trial, Role.SUBMITTER, Trial, 202, refusals=(409,)),
    Route("GET", CAMPAIGN + "/leaderboard", read_leaderboard, Role.VIEWER, Leaderboard),
    Route("GET", CAMPAIGN + "/best", read_best, Role.VIEWER, Best),
    Route("GET", CAMPAIGN + "/logs", read_log, Role.VIEWER, None, extra=_TEXT),
)
