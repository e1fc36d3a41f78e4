"""Reading the ledger, and following it: what happened after a cursor, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import URL, ColumnElement, Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from spectune.service.campaign.model.records import CampaignRecord, Event, Observation, Refusal, TrialRecord
from spectune.service.errors import CampaignNotFoundError, LedgerError
from spectune.service.ledger import rows
from spectune.service.ledger.engine import address, connect_engine
from spectune.service.ledger.set_aside import add_dead_letter
from spectune.service.ledger.tables import campaigns, cursors, dead_letters, events, observations, trials

_MAX_LISTED = 500
"""Numbers in a statement; of more, their span is read."""


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def _telling(engine: Engine) -> Iterator[None]:
    """Turn the database's errors into ours."""
    try:
        yield
    except DBAPIError as error:
        raise LedgerError(f"the ledger refused a statement ({error.orig}): got {address(engine)}") from error
    except PoolTimeoutError as error:
        raise LedgerError(f"the ledger has no connection free: got {address(engine)}") from error


def _among(column: Any, numbers: Collection[int] | None) -> list[ColumnElement[bool]]:
    """Return the conditions that a column holds one of these numbers, or, of many, one between them."""
    if numbers is None:
        return []
    if len(numbers) <= _MAX_LISTED:
        return [column.in_(sorted(numbers))]
    return [column.between(min(numbers), max(numbers))]


class FollowedLedger:
    """The database behind one URL, read; safe to share between threads. Trackers keep their cursors here.

    Args:
        url: Where the database is, which is brought up to date; or the database, opened, as it is.
        now: The clock, in milliseconds since the epoch.

    Raises:
        LedgerError: The database cannot be reached; so does every method.
    """

    def __init__(self, url: URL | str | Engine, *, now: Callable[[], int] = _milliseconds) -> None:
        self._engine: Engine = url if isinstance(url, Engine) else connect_engine(url)
        self._now = now

    @classmethod
    def at(cls, path: Path) -> Self:
        """Open the embedded ledger in a file."""
        with suppress(OSError):  # SQLite, which tells why it cannot be opened, gives a new file to nobody else
            path.touch()
        return cls(URL.create("sqlite", database=str(path)))  # a path is no URL: it may hold `?`

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def campaign(self, campaign_id: str) -> CampaignRecord:
        """Read one campaign.

        Raises:
            CampaignNotFoundError: No such campaign.
        """
        with self._reading() as connection:
            return rows.campaign(self._campaign_row(connection, campaign_id))

    def campaigns(self) -> list[CampaignRecord]:
        """Read all campaigns, the newest first."""
        with self._reading() as connection:
            order = (campaigns.c.created_at.desc(), campaigns.c.id)
            return [rows.campaign(row) for row in connection.execute(select(campaigns).order_by(*order))]

    def trials(self, campaign_id: str, *, numbers: Collection[int] | None = None) -> list[TrialRecord]:
        """Read a campaign's trials by number; all, or these."""
        query = select(trials).where(trials.c.campaign_id == campaign_id, *_among(trials.c.number, numbers))
        with self._reading() as connection:
            found = connection.execute(query.order_by(trials.c.number))
            return [rows.trial(row) for row in found if numbers is None or row.number in numbers]

    def observations(self, campaign_id: str, *, of: Collection[int] | None = None) -> list[Observation]:
        """Read observations of a campaign by trial and step; all, or those of these trials."""
        mine = (observations.c.campaign_id == campaign_id, *_among(observations.c.trial, of))
        query = select(observations).where(*mine).order_by(observations.c.trial, observations.c.step)
        with self._reading() as connection:
            return [rows.observation(row) for row in connection.execute(query) if of is None or row.trial in of]

    def changes(self, campaign_id: str, *, after: int, limit: int) -> list[Event | Observation]:
        """Read what happened after a sequence number, in order.

        Args:
            campaign_id: Which campaign.
            after: The last sequence number that is known already.
            limit: At most so many numbers further.
        """
        with self._reading() as connection:
            # Both tables are read up to what was complete at this moment, or a commit between them would be torn.
            complete = int(self._campaign_row(connection, campaign_id).sequence)
            found: list[Event | Observation] = []
            for table, read in ((events, rows.event), (observations, rows.observation)):
                window = table.c.sequence.between(after + 1, min(after + limit, complete))
                query = select(table).where((table.c.campaign_id == campaign_id) & window)
                found += [read(row) for row in connection.execute(query)]
        return sorted(found, key=lambda item: item.sequence)

    def events(self, campaign_id: str, kind: str) -> list[Event]:
        """Read a campaign's events of one kind, in order."""
        mine = (events.c.campaign_id == campaign_id) & (events.c.kind == kind)
        with self._reading() as connection:
            return [rows.event(row) for row in connection.execute(select(events).where(mine).order_by("sequence"))]

    # Cursors of those who follow

    def cursor(self, tracker: str, campaign_id: str) -> int:
        """Return how far a tracker has followed a campaign; 0 where it never has."""
        mine = (cursors.c.tracker == tracker) & (cursors.c.campaign_id == campaign_id)
        with self._reading() as connection:
            return int(connection.execute(select(cursors.c.sequence).where(mine)).scalar() or 0)

    def set_cursor(self, tracker: str, campaign_id: str, sequence: int) -> None:
        """Remember how far a tracker has followed a campaign."""
        mine = (cursors.c.tracker == tracker) & (cursors.c.campaign_id == campaign_id)
        with self._transaction() as connection:
            if connection.execute(update(cursors).where(mine).values(sequence=sequence)).rowcount == 0:
                values = {"tracker": tracker, "campaign_id": campaign_id, "sequence": sequence}
                connection.execute(insert(cursors).values(values))

    def add_dead_letters(self, tracker: str, campaign_id: str, refusals: Sequence[Refusal]) -> None:
        """Keep what a tracker will never take, with what it said; the same thing twice is kept once."""
        for refusal in refusals:
            with self._transaction() as connection:
                add_dead_letter(connection, tracker, campaign_id, refusal, at=self._now())

    def dead_letters(self, tracker: str, campaign_id: str) -> list[Refusal]:
        """Read what a tracker would not take."""
        mine = (dead_letters.c.tracker == tracker) & (dead_letters.c.campaign_id == campaign_id)
        query = select(dead_letters).where(mine).order_by(dead_letters.c.at, dead_letters.c.fingerprint)
        with self._reading() as connection:
            return [Refusal(row.trial, row.content, row.error) for row in connection.execute(query)]

    def clear_dead_letters(self, tracker: str, campaign_id: str) -> None:
        """Forget what a tracker would not take, before it is told everything again."""
        mine = (dead_letters.c.tracker == tracker) & (dead_letters.c.campaign_id == campaign_id)
        with self._transaction() as connection:
            connection.execute(delete(dead_letters).where(mine))

    # Inside a transaction

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Open a transaction; what the database refuses is ours to tell."""
        with _telling(self._engine), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _telling(self._engine), self._engine.connect() as connection:
            yield connection

    def _campaign_row(self, connection: Connection, campaign_id: str) -> Any:
        row = connection.execute(select(campaigns).where(campaigns.c.id == campaign_id)).one_or_none()
        if row is None:
            raise CampaignNotFoundError(f"no such campaign: got {campaign_id!r}")
        return row
