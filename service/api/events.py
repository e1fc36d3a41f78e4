"""A campaign's events as Server-Sent Events: everything that happens to it, in order, from any number on.

The `id` of an event is its number in the campaign's own sequence, so `Last-Event-ID` resumes without a gap. Clients
that wait for the same number share one read of the ledger. The stream ends when the campaign has ended and all was
told.
"""

from __future__ import annotations

import json
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import Header, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from spectune.service.api.campaigns import find
from spectune.service.api.routing import CAMPAIGN, Route
from spectune.service.campaign.model.numbers import metrics_to_json
from spectune.service.campaign.model.records import Event, Observation
from spectune.service.errors import CampaignNotFoundError, LedgerError, Problem, SpecificationError
from spectune.service.ledger import ServiceLedger
from spectune.service.ledger.access import Role

POLL_SECONDS = 0.5
PING_SECONDS = 15
_BATCH = 500
_MOST_KEPT = 256

LastEvent = Annotated[str | None, Header(description="Go on after the event of this number.")]


class Feed:
    """Reads what happens to campaigns, once for all who ask for the same at the same time."""

    def __init__(self, ledger: ServiceLedger) -> None:
        self._ledger = ledger
        self._lock = anyio.Lock()
        self._kept: OrderedDict[tuple[str, int], tuple[float, list[ServerSentEvent], bool]] = OrderedDict()

    async def after(self, campaign_id: str, sequence: int) -> tuple[list[ServerSentEvent], bool]:
        """Read the events after a number, and whether the campaign has ended and these are the last."""
        key = (campaign_id, sequence)
        async with self._lock:
            kept = self._kept.get(key)
            if kept is not None and time.monotonic() - kept[0] < POLL_SECONDS / 2:
                return kept[1], kept[2]
            events, is_over = await anyio.to_thread.run_sync(self._read, campaign_id, sequence)
            self._kept[key] = (time.monotonic(), events, is_over)
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return events, is_over

    def _read(self, campaign_id: str, sequence: int) -> tuple[list[ServerSentEvent], bool]:
        campaign = self._ledger.campaign(campaign_id)
        changes = self._ledger.changes(campaign_id, after=sequence, limit=_BATCH)
        last = changes[-1].sequence if changes else sequence
        return [_message(change) for change in changes], campaign.state.is_terminal and last >= campaign.sequence


def follow(
    request: Request,
    campaign_id: str,
    last_event_id: LastEvent = None,
    after: Annotated[int, Query(ge=0, lt=2**62, description="As `Last-Event-ID`, for clients without headers.")] = 0,
) -> Response:
    """Follow a campaign (`text/event-stream`); a client that knows all of an ended one is told to stop by a 204."""
    submission = find(request, campaign_id)
    if last_event_id is not None:
        if not re.fullmatch(r"[0-9]{1,18}", last_event_id):
            raise SpecificationError([Problem("Last-Event-ID", "the number of an event is needed")])
        after = int(last_event_id)
    campaign = submission.campaign
    if campaign.state.is_terminal and after >= campaign.sequence:
        return Response(status_code=204)
    feed: Feed = request.app.state.feed
    return EventSourceResponse(_events(feed, campaign_id, after), ping=PING_SECONDS)


async def _events(feed: Feed, campaign_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    while True:
        try:
            events, is_over = await feed.after(campaign_id, after)
        except LedgerError:  # it will be back; the client keeps its place
            events, is_over = [], False
        except CampaignNotFoundError:  # deleted meanwhile
            return
        for event in events:
            yield event
        if events:
            after = int(str(events[-1].id))
        if is_over:
            return
        if len(events) < _BATCH:
            await anyio.sleep(POLL_SECONDS)


def _message(change: Event | Observation) -> ServerSentEvent:
    if isinstance(change, Observation):
        body = {"trial": change.trial, "step": change.step, "metrics": metrics_to_json(change.metrics)}
        return ServerSentEvent(json.dumps(body), event="observation", id=str(change.sequence))
    body = {"at": change.at, **({} if change.trial is None else {"trial": change.trial}), **change.body}
    return ServerSentEvent(json.dumps(body), event=change.kind, id=str(change.sequence))


_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "the campaign has ended and the client knows all of it"},
}
ROUTES = (Route("GET", CAMPAIGN + "/events", follow, Role.VIEWER, None, extra=_STREAM),)
