"""What can never be entered is set aside with its reason, so that nothing is tried for ever.

A spool entry may hold what no database takes: half a surrogate pair, a number beyond its integers, a trial that does
not exist. It is kept as a dead letter under the tracker's name `SPOOL`, told as an event, and all other entries are
entered. A database that is away or full is no reason: that passes, and the batch is tried again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, insert
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from spectune.service.campaign.model.clean_text import clean_text
from spectune.service.campaign.model.records import Refusal
from spectune.service.ledger import entries
from spectune.service.ledger.statements import insert_or_ignore
from spectune.service.ledger.tables import dead_letters, events

SPOOL: Final = "spool"
_OF_THE_RECORD: Final = (DataError, IntegrityError, ProgrammingError)
_LARGEST_INTEGER: Final = 2**31 - 1


def enter_or_set_aside(
    connection: Connection, campaign_id: str, attempt: int, batch: Sequence[tuple[int, Any]], *, sequence: int
) -> int:
    """Enter spooled records in order, and set aside those that cannot be.

    Args:
        connection: The open transaction, which holds the campaign's row.
        campaign_id: Which campaign.
        attempt: The attempt whose spool this is.
        batch: Pairs of spool position and record; a record should be a mapping, but may be any JSON value.
        sequence: The campaign's last sequence number.

    Returns:
        The campaign's new last sequence number.

    Raises:
        DBAPIError: The database itself fails; nothing was entered.
    """
    try:
        with connection.begin_nested():
            return entries.enter(connection, campaign_id, attempt, [record for _, record in batch], sequence=sequence)
    except Exception as error:
        if _is_of_the_database(error):
            raise
    for position, record in batch:
        try:
            with connection.begin_nested():
                sequence = entries.enter(connection, campaign_id, attempt, [record], sequence=sequence)
        except Exception as error:
            if _is_of_the_database(error):
                raise
            sequence += 1
            _set_aside(connection, campaign_id, attempt, position, record, error, sequence=sequence)
    return sequence


def add_dead_letter(connection: Connection, tracker: str, campaign_id: str, refusal: Refusal, *, at: int) -> None:
    """Keep what will never be taken, and why; the same thing twice is kept once."""
    content, error = clean_text(refusal.content), clean_text(refusal.error)
    fingerprint = hashlib.sha256(f"{refusal.trial} {content}".encode()).hexdigest()
    mine = {"tracker": tracker, "campaign_id": campaign_id, "trial": refusal.trial, "error": error}
    insert_or_ignore(connection, dead_letters, {**mine, "fingerprint": fingerprint, "content": content, "at": at})


def _is_of_the_database(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and not isinstance(error, _OF_THE_RECORD)


def _set_aside(
    connection: Connection,
    campaign_id: str,
    attempt: int,
    position: int,
    record: Any,
    error: Exception,
    *,
    sequence: int,
) -> None:
    where = f"entry {position} of attempt {attempt}"
    reason = f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"
    at, trial = _whole(record, "at") or 0, _whole(record, "trial")
    refusal = Refusal(trial, f"{where}: {json.dumps(record)}", reason)
    add_dead_letter(connection, SPOOL, campaign_id, refusal, at=at)
    body = {"message": clean_text(f"{where} cannot be entered, and is set aside: {reason}", longest=2000)}
    values = {"campaign_id": campaign_id, "sequence": sequence, "at": at, "kind": "set_aside", "trial": trial}
    connection.execute(insert(events).values({**values, "body": body}))


def _whole(record: Any, name: str) -> int | None:
    """Return a whole number of a record that any database can hold; None if it has none."""
    value = record.get(name) if isinstance(record, dict) else None
    largest = _LARGEST_INTEGER if name == "trial" else 2**63 - 1
    return value if type(value) is int and 0 <= value <= largest else None
