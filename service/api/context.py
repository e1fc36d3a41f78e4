"""What every route needs, handed over when the application is made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fastapi import Request

from spectune.service.api.standings import Standings, Summaries
from spectune.service.campaign.specification.catalog import Catalog
from spectune.service.ledger import ServiceLedger
from spectune.service.ledger.access import KeyRecord, Role
from spectune.service.ports import Pages
from spectune.service.settings import Settings

LOCAL_OWNER = "local"


def _nothing() -> None:
    """Wake nobody."""


def _no_output(campaign_id: str, trial: int | None) -> str:
    return ""


def _no_log(_: str, __: int) -> bytes | None:
    """Know no log."""
    return None


@dataclass(frozen=True)
class Context:
    """The world of the API.

    Attributes:
        ledger: The truth.
        catalog: What specifications may name.
        settings: What the environment says.
        suffix: Makes the unique part of a campaign's id.
        wake: Called when there is something to do for the reconciler.
        driver_log: Gives what the driver of an attempt printed, None where there is nothing.
        worker_output: Reads what the code of a campaign's trials printed; of one trial, if one is named.
        pages: Finds where campaigns are tracked; None where they are not.
        standings: Remembers leaderboards.
        summaries: Remembers what lists say of campaigns.
        reporting: Held while a report is made: of ten thousand trials it takes a core for seconds.
        probes: Checks of what the service can do without for a while, by name: each gives None, or what is wrong.
    """

    ledger: ServiceLedger
    catalog: Catalog
    settings: Settings
    suffix: Callable[[], str]
    wake: Callable[[], None] = _nothing
    driver_log: Callable[[str, int], bytes | None] = _no_log
    worker_output: Callable[[str, int | None], str] = _no_output
    pages: Pages | None = None
    probes: Mapping[str, Callable[[], str | None]] = field(default_factory=dict)
    standings: Standings = field(default_factory=Standings)
    reporting: threading.Lock = field(default_factory=threading.Lock)
    summaries: Summaries = field(default_factory=Summaries)


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    owner: str
    role: Role

    @classmethod
    def of_key(cls, key: KeyRecord) -> Caller:
        """Return the caller behind a key."""
        return cls(owner=key.owner, role=key.role)

    def may_see(self, owner: str) -> bool:
        """Return whether a campaign of `owner` exists for this caller."""
        return self.role is Role.ADMIN or owner == self.owner


def context_of(request: Request) -> Context:
    """Return the context of the application that answers a request."""
    context: Context = request.app.state.context
    return context


def caller_of(request: Request) -> Caller:
    """Return who asks; the route's gate has found it out."""
    caller: Caller = request.state.caller
    return caller
