"""Campaigns: submit, list, read, change, cancel, pause, resume, retry, extend, delete."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header, Query, Request, Response

from spectune.service.api.context import caller_of, context_of
from spectune.service.api.cursors import decode, encode
from spectune.service.api.examples import SPECIFICATION
from spectune.service.api.request_body import Body, JsonBody
from spectune.service.api.routing import CAMPAIGN, Route
from spectune.service.api.schemas import Attempt, AttemptList, Campaign, CampaignPage, SetAside, SetAsideList
from spectune.service.api.serializers import attempt_document, campaign_document
from spectune.service.api.submission_request import HIGHEST_PRIORITY, integer_field, read_submission, refuse_unknown
from spectune.service.campaign.model import naming
from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState
from spectune.service.campaign.model.submission import Submission
from spectune.service.campaign.specification.specification import parse
from spectune.service.errors import BodyError, CampaignNotFoundError, Problem, SpecificationError
from spectune.service.ledger.access import Role
from spectune.service.ledger.pages import CampaignOrder, campaign_key
from spectune.service.ledger.set_aside import SPOOL
from spectune.service.ledger.submissions import IdempotencyKey

_AT_REST = (CampaignState.QUEUED, CampaignState.PAUSED)
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

IdempotencyHeader = Annotated[str | None, Header(description="Repeating a request with the same key changes nothing.")]
VersionHeader = Annotated[str | None, Header(description='The `ETag` of what was read, or "*".')]


def find(request: Request, campaign_id: str) -> Submission:
    """Read a campaign that the caller may see.

    Raises:
        CampaignNotFoundError: There is none; another owner's is none.
    """
    submission = context_of(request).ledger.submission(campaign_id)
    if not caller_of(request).may_see(submission.owner):
        raise CampaignNotFoundError(f"no such campaign: got {campaign_id!r}")
    return submission


def submit(request: Request, response: Response, body: Body, idempotency_key: IdempotencyHeader = None) -> Campaign:
    """Submit a campaign: the specification of a campaign file, with `priority` beside it if wanted."""
    context, caller = context_of(request), caller_of(request)
    priority, specification = read_submission(context, body)
    campaign_id = context.ledger.submit(
        naming.campaign_id(specification.name, suffix=context.suffix()),
        name=specification.name,
        specification=specification.document(),
        owner=caller.owner,
        priority=priority,
        idempotency=_idempotency(idempotency_key, body),
    )
    context.wake()
    response.headers["Location"] = f"/v1/campaigns/{campaign_id}"
    return _answer(request, response, context.ledger.submission(campaign_id))


def list_campaigns(
    request: Request,
    state: Annotated[list[CampaignState], Query(description="Only in these states.")] = [],  # noqa: B006
    owner: Annotated[str | None, Query(max_length=60)] = None,
    order_by: CampaignOrder = "-created_at",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=1000)] = None,
) -> CampaignPage:
    """List campaigns, a page at a time."""
    context, caller = context_of(request), caller_of(request)
    if owner is not None and "\0" in owner:
        raise SpecificationError([Problem("owner", "text may not hold the character U+0000")])
    if caller.role is not Role.ADMIN:
        if owner not in (None, caller.owner):
            return CampaignPage(campaigns=[], next_cursor=None)
        owner = caller.owner
    after = decode(cursor, order_by=order_by, like=(int, str))
    found = context.ledger.submissions(limit=limit, after=after, order_by=order_by, owner=owner, states=state)
    summaries = context.summaries.of(context.ledger, found, standings=context.standings)
    aside = context.ledger.num_set_aside([each.campaign_id for each in found])
    return CampaignPage(
        campaigns=[
            campaign_document(each, summaries[each.campaign_id], num_set_aside=aside.get(each.campaign_id, 0))
            for each in found
        ],
        next_cursor=encode(order_by, campaign_key(found[-1], order_by)) if len(found) == limit else None,
    )


def read(request: Request, response: Response, campaign_id: str) -> Campaign:
    """Read a campaign."""
    return _answer(request, response, find(request, campaign_id))


def change(
    request: Request, response: Response, campaign_id: str, body: Body, if_match: VersionHeader = None
) -> Campaign:
    """Change `priority` at any time, `workers` and `budget` while the campaign is queued or paused."""
    submission = find(request, campaign_id)
    version = _version(if_match)
    priority = integer_field(body.document, "priority", -HIGHEST_PRIORITY, HIGHEST_PRIORITY)
    workers = integer_field(body.document, "workers", 1, 1024)
    refuse_unknown(body.document, ("priority", "workers", "budget"))
    specification = None
    if workers is not None or "budget" in body.document:
        document = dict(submission.campaign.specification)
        if workers is not None:
            document["resources"] = {**document["resources"], "workers": workers}
        document["budget"] = body.document.get("budget", document["budget"])
        specification = parse(document, catalog=context_of(request).catalog).document()
    only_in = tuple(CampaignState) if specification is None else _AT_REST
    ledger = context_of(request).ledger
    changed = ledger.change(
        campaign_id, version=version, priority=priority, specification=specification, only_in=only_in
    )
    context_of(request).wake()
    return _answer(request, response, changed)


def delete(request: Request, campaign_id: str) -> None:
    """Forget a campaign that has ended."""
    find(request, campaign_id)
    context_of(request).ledger.delete(campaign_id)


def cancel(request: Request, response: Response, campaign_id: str) -> Campaign:
    """Cancel a campaign; it is CANCELLED once none of its processes is left."""
    find(request, campaign_id)
    return _move(request, response, campaign_id, CampaignEvent.CANCEL)


def pause(request: Request, response: Response, campaign_id: str) -> Campaign:
    """Pause a campaign: its trials keep their checkpoints."""
    find(request, campaign_id)
    return _move(request, response, campaign_id, CampaignEvent.PAUSE)


def resume(request: Request, response: Response, campaign_id: str) -> Campaign:
    """Queue a paused campaign again."""
    find(request, campaign_id)
    return _set_going(request, response, campaign_id, CampaignEvent.RESUME)


def retry_failed(request: Request, response: Response, campaign_id: str) -> Campaign:
    """Run the trials of an ended campaign again that failed or were lost."""
    find(request, campaign_id)
    return _set_going(request, response, campaign_id, CampaignEvent.RETRY)


def extend(request: Request, response: Response, campaign_id: str, body: Body) -> Campaign:
    """Give each arm of an ended campaign more points: `points` is their new number, so that repeating is harmless."""
    submission = find(request, campaign_id)
    document = dict(submission.campaign.specification)
    now = int(document["search"]["points"])
    refuse_unknown(body.document, ("points",))
    points = integer_field(body.document, "points", now, 100_000)
    if points is None:
        raise SpecificationError([Problem("/points", "missing")])
    if points == now:
        return _answer(request, response, submission)
    document["search"] = {**document["search"], "points": points}
    context = context_of(request)
    specification = parse(document, catalog=context.catalog).document()
    changed = context.ledger.change(campaign_id, version=None, specification=specification, event=CampaignEvent.EXTEND)
    context.wake()
    return _answer(request, response, changed)


def list_attempts(request: Request, campaign_id: str) -> AttemptList:
    """List the launches of a campaign's driver."""
    find(request, campaign_id)
    attempts: list[Attempt] = [attempt_document(each) for each in context_of(request).ledger.attempts(campaign_id)]
    return AttemptList(attempts=attempts)


def list_set_aside(request: Request, campaign_id: str) -> SetAsideList:
    """List the records of a campaign's drivers that the ledger cannot hold, and why."""
    find(request, campaign_id)
    found = context_of(request).ledger.dead_letters(SPOOL, campaign_id)
    return SetAsideList(records=[SetAside(trial=each.trial, content=each.content, reason=each.error) for each in found])


def _answer(request: Request, response: Response, submission: Submission) -> Campaign:
    response.headers["ETag"] = f'"{submission.version}"'
    context, campaign_id = context_of(request), submission.campaign_id
    aside = context.ledger.num_set_aside([campaign_id]).get(campaign_id, 0)
    summary = context.summaries.of(context.ledger, [submission], standings=context.standings)[campaign_id]
    return campaign_document(submission, summary, num_set_aside=aside)


def _move(request: Request, response: Response, campaign_id: str, event: CampaignEvent) -> Campaign:
    context = context_of(request)
    context.ledger.move_campaign(campaign_id, event, reason="user", message=f"{event} asked for by a user")
    context.wake()
    return _answer(request, response, context.ledger.submission(campaign_id))


def _set_going(request: Request, response: Response, campaign_id: str, event: CampaignEvent) -> Campaign:
    context = context_of(request)
    context.ledger.set_going(campaign_id, event)
    context.wake()
    return _answer(request, response, context.ledger.submission(campaign_id))


def _idempotency(key: str | None, body: JsonBody) -> IdempotencyKey | None:
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise SpecificationError([Problem("Idempotency-Key", "1 to 255 printable ASCII characters are needed")])
    return IdempotencyKey(key, body.fingerprint)


def _version(if_match: str | None) -> int | None:
    if if_match is None:
        raise BodyError("the header If-Match is needed: the ETag of what was read", status=428, kind="if-match")
    if if_match.strip() == "*":
        return None
    found = re.fullmatch(r'"(\d{1,9})"', if_match.strip())
    return int(found[1]) if found else 0  # no campaign has version 0


_CHANGE = {"priority": 10, "budget": {"device_seconds": 600}}
ROUTES = (
    Route("POST", "/v1/campaigns", submit, Role.SUBMITTER, Campaign, 201, SPECIFICATION, refusals=(404,)),
    Route("GET", "/v1/campaigns", list_campaigns, Role.VIEWER, CampaignPage),
    Route("GET", CAMPAIGN, read, Role.VIEWER, Campaign),
    Route("PATCH", CAMPAIGN, change, Role.SUBMITTER, Campaign, 200, _CHANGE, refusals=(409, 412, 428)),
    Route("DELETE", CAMPAIGN, delete, Role.SUBMITTER, None, 204, refusals=(409,)),
    Route("POST", CAMPAIGN + ":cancel", cancel, Role.SUBMITTER, Campaign, 202, refusals=(409,)),
    Route("POST", CAMPAIGN + ":pause", pause, Role.SUBMITTER, Campaign, 202, refusals=(409,)),
    Route("POST", CAMPAIGN + ":resume", resume, Role.SUBMITTER, Campaign, 202, refusals=(409,)),
    Route("POST", CAMPAIGN + ":retry-failed", retry_failed, Role.SUBMITTER, Campaign, 202, refusals=(409,)),
    Route("POST", CAMPAIGN + ":extend", extend, Role.SUBMITTER, Campaign, 202, {"points": 16}, refusals=(409,)),
    Route("GET", CAMPAIGN + "/attempts", list_attempts, Role.VIEWER, AttemptList),
    Route("GET", CAMPAIGN + "/set-aside", list_set_aside, Role.VIEWER, SetAsideList),
)
