"""Submissions: campaigns that belong to the service, with their owners, and what its users may change about them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from spectune.service.campaign.model.clean_text import clean_text
from spectune.service.campaign.model.lifecycle import STOPPED_BY_USER, CampaignEvent, CampaignState, TrialState
from spectune.service.campaign.model.submission import LIVE, AttemptRecord, Submission
from spectune.service.errors import (
    CampaignNotFoundError,
    IdempotencyError,
    IllegalTransitionError,
    StaleVersionError,
    TrialNotFoundError,
)
from spectune.service.ledger import rows
from spectune.service.ledger.leases import LeaseLedger
from spectune.service.ledger.retries import reopen_trials
from spectune.service.ledger.statements import insert_or_ignore
from spectune.service.ledger.tables import (
    attempts,
    campaigns,
    cursors,
    dead_letters,
    events,
    idempotency_keys,
    observations,
    stop_requests,
    submissions,
    trials,
)

LEADER = "reconciler"
_NEW = {"priority": 0, "version": 1, "num_failures": 0, "not_before": 0, "waiting_for": ""}


@dataclass(frozen=True)
class IdempotencyKey:
    """What a client calls one request, however often it sends it.

    Attributes:
        key: The client's word for it; each owner has its own.
        fingerprint: SHA-256 of what was asked.
    """

    key: str
    fingerprint: str


class SubmissionLedger(LeaseLedger):
    """The ledger's submissions."""

    def submit(
        self,
        campaign_id: str,
        *,
        name: str,
        specification: Mapping[str, Any],
        owner: str,
        priority: int = 0,
        idempotency: IdempotencyKey | None = None,
    ) -> str:
        """Enter a campaign as QUEUED, once for each idempotency key.

        Returns:
            The id of the campaign: `campaign_id`, or the one that the key stands for already.

        Raises:
            IdempotencyError: The key was used for another request.
        """
        with self._transaction() as connection:
            if idempotency is not None:
                known = self._known_request(connection, campaign_id, owner, idempotency)
                if known is not None:
                    return known
            self._create_campaign(connection, campaign_id, name, specification)
            place = {"campaign_id": campaign_id, "owner": owner}
            connection.execute(insert(submissions).values({**place, **_NEW, "priority": priority}))
        return campaign_id

    def take_over(self, *, owner: str) -> int:
        """Enter campaigns that were run without the service as an owner's, if nobody runs them any more.

        Returns:
            How many there were; those that have not ended belong to the command that runs them.
        """
        at_rest = [state for state in CampaignState if state not in LIVE]
        known = select(submissions.c.campaign_id)
        fresh = select(campaigns.c.id).where(campaigns.c.state.in_(at_rest), campaigns.c.id.not_in(known))
        with self._transaction() as connection:
            found = [{"campaign_id": row.id, "owner": owner, **_NEW} for row in connection.execute(fresh)]
            if found:
                connection.execute(insert(submissions), found)
        return len(found)

    def submission(self, campaign_id: str) -> Submission:
        """Read one submission.

        Raises:
            CampaignNotFoundError: No such campaign, or not one of the service.
        """
        with self._reading() as connection:
            return self._submission(connection, campaign_id)

    def live_submissions(self) -> list[Submission]:
        """Read all submissions for which the service has something to do, in the order of their arrival."""
        query = SUBMITTED.where(campaigns.c.state.in_(LIVE)).order_by(campaigns.c.created_at, campaigns.c.id)
        with self._reading() as connection:
            return [read_submission(row) for row in connection.execute(query)]

    def attempts(self, campaign_id: str) -> list[AttemptRecord]:
        """Read a campaign's attempts by number."""
        query = select(attempts).where(attempts.c.campaign_id == campaign_id).order_by(attempts.c.number)
        names = ("number", "started_at", "claimed_at", "heartbeat_at", "ended_at", "exit_code")
        with self._reading() as connection:
            return [AttemptRecord(**{name: getattr(row, name) for name in names}) for row in connection.execute(query)]

    def clock(self) -> int:
        """Tell the time by the database's clock, in milliseconds since the epoch."""
        with self._reading() as connection:
            return int(connection.execute(select(self._clock())).scalar_one())

    # What the reconciler does; only the leader can

    def launch(self, campaign_id: str, *, holder: str) -> int:
        """Move a queued campaign to STARTING and open its next attempt, in one transaction.

        Raises:
            LeadershipError: `holder` does not lead.
            IllegalTransitionError: It is not queued any more.
        """
        with self._transaction() as connection:
            self._check_lease(connection, LEADER, holder)
            row = self._lock(connection, campaign_id, None)
            message = f"attempt {row.attempt + 1}"
            self._move_campaign(connection, row, CampaignEvent.LAUNCH, "launching", message)
            self._set(connection, campaign_id, queue_position=None, waiting_for="")
            return self._begin_attempt(connection, row)

    def lose_attempt(
        self, campaign_id: str, *, message: str, retry_seconds: float, num_failures: int, reason: str = "driver_lost"
    ) -> CampaignState:
        """Put a campaign whose driver is gone back into the queue, not to be launched before a pause.

        Args:
            campaign_id: Which one.
            message: Why it is gone.
            retry_seconds: The pause.
            num_failures: How many attempts have now been lost in a row.
            reason: One word or two for programs.
        """
        with self._transaction() as connection:
            row = self._lock(connection, campaign_id, None)
            state = self._move_campaign(connection, row, CampaignEvent.LOSE_ATTEMPT, reason, message)
            not_before = self._clock() + int(retry_seconds * 1000)
            self._set(connection, campaign_id, num_failures=num_failures, not_before=not_before)
            return state

    def explain(self, waits: Mapping[str, tuple[int | None, str]]) -> None:
        """Say for some campaigns, by id, at which place of the queue they wait and what for."""
        with self._transaction() as connection:
            for campaign_id, (queue_position, waiting_for) in waits.items():
                sentence = clean_text(waiting_for)
                self._set(connection, campaign_id, queue_position=queue_position, waiting_for=sentence)

    # What users do

    def change(
        self,
        campaign_id: str,
        *,
        version: int | None,
        priority: int | None = None,
        specification: Mapping[str, Any] | None = None,
        event: CampaignEvent | None = None,
        only_in: Collection[CampaignState] = tuple(CampaignState),
    ) -> Submission:
        """Change what a user may change, in one transaction.

        Args:
            campaign_id: Which campaign.
            version: What the user has read; None where anything goes.
            priority: The new priority, if any.
            specification: The new specification, if any; what runs keeps the old one.
            event: What happens to the campaign by it, if anything.
            only_in: The states in which it may be changed.

        Raises:
            StaleVersionError: The version is another.
            IllegalTransitionError: The campaign is in another state.
        """
        with self._transaction() as connection:
            row = self._lock(connection, campaign_id, None)
            now = self._submission(connection, campaign_id)
            if version is not None and version != now.version:
                raise StaleVersionError(f"the campaign is at version {now.version}: got {version}")
            if now.campaign.state not in only_in:
                story = self._story(connection, campaign_id)
                allowed = (f"no change of what its driver has read (only {', '.join(only_in)} do)",)
                raise IllegalTransitionError(state=now.campaign.state, event="change", allowed=allowed, story=story)
            if specification is not None:
                mine = campaigns.c.id == campaign_id
                connection.execute(update(campaigns).where(mine).values(specification=dict(specification)))
            if event is not None:
                self._move_campaign(connection, row, event, "user", "asked for by a user")
                self._set(connection, campaign_id, num_failures=0, not_before=0)
            fresh = now.priority if priority is None else priority
            self._set(connection, campaign_id, version=now.version + 1, priority=fresh)
            self._tell(connection, campaign_id, "campaign_changed", {"priority": fresh, "version": now.version + 1})
            return self._submission(connection, campaign_id)

    def set_going(self, campaign_id: str, event: CampaignEvent) -> None:
        """Queue a campaign again (resume, retry): its failures are forgotten; a retry reopens its failed trials.

        Raises:
            IllegalTransitionError: The campaign's state does not allow it.
            NothingFailedError: It is to be retried, and neither it nor one of its trials has failed.
        """
        with self._transaction() as connection:
            row = self._lock(connection, campaign_id, None)
            self._move_campaign(connection, row, event, "user", "asked for by a user")
            self._set(connection, campaign_id, num_failures=0, not_before=0)
            if event is CampaignEvent.RETRY:
                state = CampaignState(row.state)  # that it had
                reopen_trials(connection, self._lock(connection, campaign_id, None), state=state, at=self._now())

    def ask_to_stop(self, campaign_id: str, number: int) -> None:
        """Note that a user wants one trial to end, whoever trains it now or will; harmless when repeated.

        Raises:
            TrialNotFoundError: No trial has this number.
            IllegalTransitionError: It has ended, and not because a user wanted it.
        """
        with self._transaction() as connection:
            self._lock(connection, campaign_id, None)
            mine = (trials.c.campaign_id == campaign_id) & (trials.c.number == number)
            trial = connection.execute(select(trials.c.state, trials.c.reason).where(mine)).one_or_none()
            if trial is None:
                raise TrialNotFoundError(f"campaign {campaign_id} has no such trial: got {number}")
            state = TrialState(trial.state)
            if state.is_terminal and trial.reason != STOPPED_BY_USER:
                raise IllegalTransitionError(
                    state=state, event="stop", allowed=(), story=(f"{state} ({trial.reason})",)
                )
            values = {"campaign_id": campaign_id, "trial": number, "asked_at": self._now()}
            if insert_or_ignore(connection, stop_requests, values):
                self._tell(connection, campaign_id, "stop_asked", {"stopped": number})

    def delete(self, campaign_id: str) -> None:
        """Forget a campaign that has ended, with all that happened to it.

        Raises:
            IllegalTransitionError: It has not ended.
        """
        with self._transaction() as connection:
            state = CampaignState(self._lock(connection, campaign_id, None).state)
            if not state.is_terminal:
                story = self._story(connection, campaign_id)
                allowed = [str(event) for event in (CampaignEvent.CANCEL, CampaignEvent.PAUSE)]
                raise IllegalTransitionError(state=state, event="delete", allowed=allowed, story=story)
            for table in (submissions, cursors, dead_letters, stop_requests, events, observations, trials, attempts):
                connection.execute(delete(table).where(table.c.campaign_id == campaign_id))
            connection.execute(delete(campaigns).where(campaigns.c.id == campaign_id))

    # Inside a transaction

    def _known_request(
        self, connection: Connection, campaign_id: str, owner: str, idempotency: IdempotencyKey
    ) -> str | None:
        values: dict[str, Any] = {"owner": owner, "key": idempotency.key, "fingerprint": idempotency.fingerprint}
        values |= {"campaign_id": campaign_id, "created_at": self._now()}
        if insert_or_ignore(connection, idempotency_keys, values):
            return None
        mine = (idempotency_keys.c.owner == owner) & (idempotency_keys.c.key == idempotency.key)
        row = connection.execute(select(idempotency_keys).where(mine)).one()
        if row.fingerprint != idempotency.fingerprint:
            raise IdempotencyError(f"the idempotency key stands for another request: got {idempotency.key!r}")
        return str(row.campaign_id)

    def _submission(self, connection: Connection, campaign_id: str) -> Submission:
        row = connection.execute(SUBMITTED.where(campaigns.c.id == campaign_id)).one_or_none()
        if row is None:
            raise CampaignNotFoundError(f"no such campaign: got {campaign_id!r}")
        return read_submission(row)

    def _set(self, connection: Connection, campaign_id: str, **values: Any) -> None:
        connection.execute(update(submissions).where(submissions.c.campaign_id == campaign_id).values(**values))


_OWN: tuple[ColumnElement[Any], ...] = tuple(each for each in submissions.c if each.name != "campaign_id")
SUBMITTED = select(campaigns, *_OWN).join(submissions, submissions.c.campaign_id == campaigns.c.id)


def read_submission(row: Any) -> Submission:
    """Read a row of `SUBMITTED`."""
    names = ("owner", "priority", "version", "num_failures", "not_before", "queue_position", "waiting_for")
    return Submission(campaign=rows.campaign(row), **{name: getattr(row, name) for name in names})
