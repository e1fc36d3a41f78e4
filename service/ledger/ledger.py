"""The ledger: campaigns, attempts, trials, observations and events, and the laws about writing them.

Each write is one transaction that changes state and tells it as an event. A driver's writes are fenced: they begin by
touching the campaign's row *where the attempt is still the writer's*, which also orders them, so that sequence numbers
have no gaps and no late commits. Entries of a spool are counted per attempt, so importing one twice adds nothing, and
an observation is kept once per (trial, step): the first wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from spectune.service.campaign.model.clean_text import clean_text
from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState, TrialState, next_campaign_state
from spectune.service.errors import FencedError
from spectune.service.ledger import entries
from spectune.service.ledger.engine import database_clock
from spectune.service.ledger.followed import FollowedLedger
from spectune.service.ledger.set_aside import enter_or_set_aside
from spectune.service.ledger.spool import Record
from spectune.service.ledger.tables import attempts, campaigns, events, observations, stop_requests, trials


class Ledger(FollowedLedger):
    """The database behind one URL, read and written; safe to share between threads."""

    # Campaigns

    def create_campaign(self, campaign_id: str, *, name: str, specification: Mapping[str, Any]) -> None:
        """Enter a new campaign as QUEUED.

        Raises:
            LedgerError: The id exists already.
        """
        with self._transaction() as connection:
            self._create_campaign(connection, campaign_id, name, specification)

    def move_campaign(
        self, campaign_id: str, event: CampaignEvent, *, reason: str, message: str = "", attempt: int | None = None
    ) -> CampaignState:
        """Move a campaign along its life.

        Args:
            campaign_id: Which one.
            event: What happened to it.
            reason: One word or two for programs.
            message: A sentence for people.
            attempt: The writer's attempt where the writer is a driver; None for the service.

        Raises:
            CampaignNotFoundError: No such campaign.
            FencedError: Another attempt has taken over.
            IllegalTransitionError: The campaign's state does not allow the event.
        """
        with self._transaction() as connection:
            row = self._lock(connection, campaign_id, attempt)
            return self._move_campaign(connection, row, event, reason, message)

    # Attempts

    def begin_attempt(self, campaign_id: str) -> int:
        """Open the next attempt; from here on the attempts before it cannot write."""
        with self._transaction() as connection:
            return self._begin_attempt(connection, self._lock(connection, campaign_id, None))

    def claim_attempt(self, campaign_id: str, attempt: int) -> None:
        """Take an attempt for the calling driver; it can be taken once.

        Raises:
            FencedError: It was taken already, or another attempt has taken over.
        """
        now = self._now()
        with self._transaction() as connection:
            self._lock(connection, campaign_id, attempt)
            mine = (attempts.c.campaign_id == campaign_id) & (attempts.c.number == attempt)
            claim = update(attempts).where(mine & attempts.c.claimed_at.is_(None))
            if connection.execute(claim.values(claimed_at=now, heartbeat_at=self._clock())).rowcount != 1:
                raise FencedError(f"campaign {campaign_id}: the attempt was claimed already: got {attempt}")

    def beat(self, campaign_id: str, attempt: int) -> None:
        """Say that the driver of an attempt is alive, by the database's clock."""
        with self._transaction() as connection:
            mine = (attempts.c.campaign_id == campaign_id) & (attempts.c.number == attempt)
            connection.execute(update(attempts).where(mine).values(heartbeat_at=self._clock()))

    def end_attempt(self, campaign_id: str, attempt: int, *, exit_code: int) -> None:
        """Record how the process of an attempt ended."""
        with self._transaction() as connection:
            self._lock(connection, campaign_id, None)
            mine = (attempts.c.campaign_id == campaign_id) & (attempts.c.number == attempt)
            connection.execute(update(attempts).where(mine).values(ended_at=self._now(), exit_code=exit_code))
            self._tell(connection, campaign_id, "attempt_ended", {"attempt": attempt, "exit_code": exit_code})

    def stops_asked(self, campaign_id: str) -> list[int]:
        """Return which trials a user wants to end; those that have ended since are among them."""
        query = select(stop_requests.c.trial).where(stop_requests.c.campaign_id == campaign_id)
        with self._reading() as connection:
            return sorted(connection.execute(query).scalars())

    def explain_attempt(self, campaign_id: str, attempt: int, *, reason: str, message: str) -> None:
        """Record what a running campaign waits for, or that it waits no longer; its state stays.

        Raises:
            FencedError: Another attempt has taken over.
        """
        told = {"reason": reason, "message": clean_text(message)}
        with self._transaction() as connection:
            self._lock(connection, campaign_id, attempt)
            connection.execute(update(campaigns).where(campaigns.c.id == campaign_id).values(**told))
            self._tell(connection, campaign_id, "attempt_explained", {"attempt": attempt, **told})

    def has_progressed(self, campaign_id: str, attempt: int) -> bool:
        """Return whether an attempt has brought an observation."""
        mine = (observations.c.campaign_id == campaign_id) & (observations.c.attempt == attempt)
        with self._reading() as connection:
            return connection.execute(select(observations.c.step).where(mine).limit(1)).first() is not None

    def attempt_spans(self, campaign_id: str, *, before: int) -> dict[int, tuple[int, int]]:
        """Return when each earlier attempt was claimed and when it ended or, if nobody saw that, was last heard of."""
        end = func.coalesce(attempts.c.ended_at, attempts.c.heartbeat_at)
        earlier = (attempts.c.campaign_id == campaign_id) & (attempts.c.number < before)
        query = select(attempts.c.number, attempts.c.claimed_at, end)
        claimed = query.where(earlier & attempts.c.claimed_at.is_not(None))
        with self._reading() as connection:
            return {int(number): (int(start), int(ended)) for number, start, ended in connection.execute(claimed)}

    def spool_position(self, campaign_id: str, attempt: int) -> int:
        """Return how many entries of an attempt's spool the ledger holds."""
        mine = (attempts.c.campaign_id == campaign_id) & (attempts.c.number == attempt)
        with self._reading() as connection:
            return int(connection.execute(select(attempts.c.spool_position).where(mine)).scalar_one())

    def append(
        self, campaign_id: str, attempt: int, batch: Sequence[tuple[int, Record]], *, spool_of: int | None = None
    ) -> None:
        """Enter spooled records, all or none; those that the ledger holds already are passed over.

        A record that no database will ever hold is set aside with its reason, where `dead_letters` finds it.

        Args:
            campaign_id: Which campaign.
            attempt: The writer's attempt, checked against the fence.
            batch: Pairs of spool position and record, in order.
            spool_of: The attempt whose spool this is; by default the writer's own.

        Raises:
            FencedError: Another attempt has taken over; nothing was written.
        """
        source = attempt if spool_of is None else spool_of
        mine = (attempts.c.campaign_id == campaign_id) & (attempts.c.number == source)
        with self._transaction() as connection:
            row = self._lock(connection, campaign_id, attempt)
            held = int(connection.execute(select(attempts.c.spool_position).where(mine)).scalar_one())
            fresh = [(position, record) for position, record in batch if position > held]
            if not fresh:
                return
            sequence = enter_or_set_aside(connection, campaign_id, source, fresh, sequence=int(row.sequence))
            connection.execute(update(campaigns).where(campaigns.c.id == campaign_id).values(sequence=sequence))
            connection.execute(update(attempts).where(mine).values(spool_position=fresh[-1][0]))

    def move_open_trials(self, campaign_id: str, state: TrialState, *, reason: str, message: str = "") -> None:
        """Move every trial that has not ended, in one transaction; for campaigns without a living driver."""
        with self._transaction() as connection:
            row = self._lock(connection, campaign_id, None)
            mine = (trials.c.campaign_id == campaign_id) & (trials.c.state != state)
            open_trials = trials.c.state.in_([TrialState.PENDING, TrialState.RUNNING])
            query = select(trials.c.number).where(mine & open_trials)
            now = self._now()
            records = [
                entries.trial_moved(trial=number, state=state, reason=reason, message=message, at=now)
                for number in connection.execute(query.order_by(trials.c.number)).scalars()
            ]
            sequence = entries.enter(connection, campaign_id, int(row.attempt), records, sequence=int(row.sequence))
            connection.execute(update(campaigns).where(campaigns.c.id == campaign_id).values(sequence=sequence))

    # Inside a transaction

    def _create_campaign(
        self, connection: Connection, campaign_id: str, name: str, specification: Mapping[str, Any]
    ) -> None:
        now = self._now()
        values: dict[str, Any] = {
            "id": campaign_id,
            "name": name,
            "state": CampaignState.QUEUED,
            "reason": "submitted",
            "message": "",
        }
        values |= {"since": now, "created_at": now, "specification": dict(specification), "attempt": 0, "sequence": 0}
        connection.execute(insert(campaigns).values(values))
        self._tell(connection, campaign_id, "campaign_created", {"name": name})

    def _move_campaign(
        self, connection: Connection, row: Any, event: CampaignEvent, reason: str, message: str
    ) -> CampaignState:
        """Move a campaign whose row is locked."""
        state = next_campaign_state(CampaignState(row.state), event, story=self._story(connection, row.id))
        told = {"state": state, "reason": reason, "message": clean_text(message)}
        connection.execute(update(campaigns).where(campaigns.c.id == row.id).values(**told, since=self._now()))
        self._tell(connection, row.id, "campaign_moved", told)
        return state

    def _begin_attempt(self, connection: Connection, row: Any) -> int:
        """Open the next attempt of a campaign whose row is locked."""
        number = int(row.attempt) + 1
        connection.execute(update(campaigns).where(campaigns.c.id == row.id).values(attempt=number))
        values = {"campaign_id": row.id, "number": number, "started_at": self._now(), "spool_position": 0}
        connection.execute(insert(attempts).values(values))
        self._tell(connection, row.id, "attempt_began", {"attempt": number})
        return number

    def _clock(self) -> ColumnElement[int]:
        """Return the database's own clock, which all its writers share."""
        return database_clock(self._engine.dialect.name)

    def _lock(self, connection: Connection, campaign_id: str, attempt: int | None) -> Any:
        """Take the campaign's row for this transaction; a driver gets it only while its attempt is the current one."""
        mine = campaigns.c.id == campaign_id
        allowed = mine if attempt is None else mine & (campaigns.c.attempt == attempt)
        touch = update(campaigns).where(allowed).values(sequence=campaigns.c.sequence)
        if connection.execute(touch).rowcount == 1:
            return self._campaign_row(connection, campaign_id)
        current = self._campaign_row(connection, campaign_id).attempt
        raise FencedError(f"campaign {campaign_id}: attempt {current} has taken over: got attempt {attempt}")

    def _tell(self, connection: Connection, campaign_id: str, kind: str, body: Mapping[str, Any]) -> None:
        """Give an event the campaign's next sequence number."""
        bump = update(campaigns).where(campaigns.c.id == campaign_id).values(sequence=campaigns.c.sequence + 1)
        sequence = connection.execute(bump.returning(campaigns.c.sequence)).scalar_one()
        values = {"campaign_id": campaign_id, "sequence": sequence, "at": self._now(), "kind": kind, "body": dict(body)}
        connection.execute(insert(events).values(values))

    def _story(self, connection: Connection, campaign_id: str) -> Iterable[str]:
        """Tell a campaign's moves so far, for the message of an illegal one."""
        moved = (events.c.campaign_id == campaign_id) & (events.c.kind == "campaign_moved")
        query = select(events).where(moved).order_by(events.c.sequence)
        return [f"{row.body['state']} ({row.body['reason']})" for row in connection.execute(query)]
