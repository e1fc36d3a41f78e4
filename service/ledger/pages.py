"""Lists, a page at a time: each page says after which key it begins, so that nothing is skipped or shown twice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, CompoundSelect, Select, and_, case, func, or_, select

from spectune.service.campaign.analysis.summary import Summary
from spectune.service.campaign.model.lifecycle import CampaignState, TrialState
from spectune.service.campaign.model.progress import Tally
from spectune.service.campaign.model.records import CampaignRecord, Observation, Phase, TrialOutcome, TrialRecord
from spectune.service.campaign.model.submission import Submission
from spectune.service.errors import TrialNotFoundError
from spectune.service.ledger import rows
from spectune.service.ledger.set_aside import SPOOL
from spectune.service.ledger.submissions import SUBMITTED, SubmissionLedger, read_submission
from spectune.service.ledger.summaries import phase_of_trial, read_summaries, read_tallies
from spectune.service.ledger.tables import (
    attempts,
    campaigns,
    cursors,
    dead_letters,
    events,
    observations,
    submissions,
    trials,
)

CampaignOrder = Literal["created_at", "-created_at", "priority", "-priority"]
TrialOrder = Literal["number", "objective", "-objective"]
Key = tuple[Any, ...]


class PagedLedger(SubmissionLedger):
    """The ledger's lists."""

    def submissions(
        self,
        *,
        limit: int,
        after: Key | None = None,
        order_by: CampaignOrder = "-created_at",
        owner: str | None = None,
        states: Collection[CampaignState] = (),
    ) -> list[Submission]:
        """Read a page of submissions.

        Args:
            limit: At most so many.
            after: `campaign_key` of the last one that is known.
            order_by: A minus sign puts the greatest first.
            owner: Only this owner's, where given.
            states: Only in these states, where given.
        """
        column = {"created_at": campaigns.c.created_at, "priority": submissions.c.priority}[order_by.lstrip("-")]
        query = SUBMITTED
        if owner is not None:
            query = query.where(submissions.c.owner == owner)
        if states:
            query = query.where(campaigns.c.state.in_(states))
        query = _page(query, [column, campaigns.c.id], after, limit, is_descending=order_by.startswith("-"))
        with self._reading() as connection:
            return [read_submission(row) for row in connection.execute(query)]

    def trial_page(
        self,
        campaign_id: str,
        *,
        limit: int,
        after: Key | None = None,
        order_by: TrialOrder = "number",
        states: Collection[TrialState] = (),
        arm: int | None = None,
        phase: Phase | None = None,
    ) -> list[TrialRecord]:
        """Read a page of a campaign's trials; in the order of the objective those without a finite one come last."""
        query = select(trials).where(trials.c.campaign_id == campaign_id)
        if states:
            query = query.where(trials.c.state.in_(states))
        if arm is not None:
            query = query.where(trials.c.arm == arm)
        if phase is not None:
            query = query.where(phase_of_trial() == phase.value)
        columns: list[ColumnElement[Any]] = [trials.c.number]
        if order_by != "number":
            sign = -1 if order_by.startswith("-") else 1
            is_last = case((trials.c.objective_kind == "finite", 0), else_=1)
            columns = [is_last, func.coalesce(sign * trials.c.objective, 0.0), trials.c.number]
        with self._reading() as connection:
            return [rows.trial(row) for row in connection.execute(_page(query, columns, after, limit))]

    def trial(self, campaign_id: str, number: int) -> TrialRecord:
        """Read one trial.

        Raises:
            TrialNotFoundError: The campaign has no trial of this number.
        """
        mine = (trials.c.campaign_id == campaign_id) & (trials.c.number == number)
        with self._reading() as connection:
            row = connection.execute(select(trials).where(mine)).one_or_none()
        if row is None:
            raise TrialNotFoundError(f"no such trial of campaign {campaign_id}: got {number}")
        return rows.trial(row)

    def observations_of(self, campaign_id: str, trial: int) -> list[Observation]:
        """Read one trial's observations by step."""
        mine = (observations.c.campaign_id == campaign_id) & (observations.c.trial == trial)
        with self._reading() as connection:
            query = select(observations).where(mine).order_by(observations.c.step)
            return [rows.observation(row) for row in connection.execute(query)]

    def outcomes(self, campaign_id: str, *, after: int = 0) -> list[TrialOutcome]:
        """Read what standings need of the trials that have come to be, moved, or reported once ended.

        Args:
            campaign_id: Which campaign.
            after: Only what happened after this number of its sequence.
        """
        names = ("number", "arm", "point", "config", "state", "objective", "objective_kind")
        query = select(*(trials.c[name] for name in names), phase_of_trial().label("phase"))
        query = query.where(trials.c.campaign_id == campaign_id)
        if after:
            query = query.where(trials.c.number.in_(_changed(campaign_id, after)))
        with self._reading() as connection:
            return [rows.outcome(row) for row in connection.execute(query)]

    def tallies(self, campaign_ids: Collection[str]) -> dict[str, list[Tally]]:
        """Count the trials of some campaigns by arm and state, by id."""
        with self._reading() as connection:
            return read_tallies(connection, campaign_ids)

    def summaries(self, found: Sequence[CampaignRecord]) -> dict[str, Summary]:
        """Summarize the trials of some campaigns, by id."""
        with self._reading() as connection:
            return read_summaries(connection, found)

    def num_campaigns(self) -> dict[CampaignState, int]:
        """Count the submissions by state."""
        query = select(campaigns.c.state, func.count().label("how_many")).join(submissions).group_by(campaigns.c.state)
        with self._reading() as connection:
            return {CampaignState(row.state): int(row.how_many) for row in connection.execute(query)}

    def heartbeats(self, campaign_ids: Collection[str]) -> dict[str, int | None]:
        """Return when the driver of each campaign's current attempt was last known to be alive."""
        same = (attempts.c.campaign_id == campaigns.c.id) & (attempts.c.number == campaigns.c.attempt)
        query = select(campaigns.c.id, attempts.c.heartbeat_at).join(attempts, same)
        with self._reading() as connection:
            found = connection.execute(query.where(campaigns.c.id.in_(campaign_ids)))
            return {row.id: row.heartbeat_at for row in found}

    def plans(self, campaign_ids: Collection[str]) -> dict[str, list[dict[str, Any]]]:
        """Read what workers of some campaigns found out about training trials together, by id; those that have any."""
        mine = events.c.campaign_id.in_(campaign_ids) & (events.c.kind == "planned")
        query = (
            select(events.c.campaign_id, events.c.body).where(mine).order_by(events.c.campaign_id, events.c.sequence)
        )
        found: dict[str, list[dict[str, Any]]] = {}
        with self._reading() as connection:
            for row in connection.execute(query):
                found.setdefault(row.campaign_id, []).append(row.body)
        return found

    def num_attempts(self) -> dict[str, int]:
        """Count the attempts of the service's campaigns: begun, claimed by a driver, and ended."""
        columns = {"begun": attempts.c.number, "claimed": attempts.c.claimed_at, "ended": attempts.c.ended_at}
        counts = [func.count(column).label(name) for name, column in columns.items()]
        query = (
            select(*counts).select_from(attempts).join(submissions, submissions.c.campaign_id == attempts.c.campaign_id)
        )
        with self._reading() as connection:
            row = connection.execute(query).one()
        return {name: int(getattr(row, name)) for name in columns}

    def num_observations(self) -> int:
        """Count the observations of the service's campaigns."""
        query = select(func.count()).select_from(observations)
        with self._reading() as connection:
            return int(connection.execute(query.join(submissions, _same_campaign)).scalar_one())

    def num_changes(self) -> int:
        """Count everything that ever happened to the campaigns of the service."""
        query = select(func.coalesce(func.sum(campaigns.c.sequence), 0)).join(submissions)
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())

    def lag(self, tracker: str) -> int:
        """Count what happened to the campaigns of the service that a tracker has not been told."""
        mine = (cursors.c.campaign_id == campaigns.c.id) & (cursors.c.tracker == tracker)
        behind = campaigns.c.sequence - func.coalesce(cursors.c.sequence, 0)
        query = select(func.coalesce(func.sum(behind), 0)).select_from(campaigns).join(submissions)
        with self._reading() as connection:
            return int(connection.execute(query.outerjoin(cursors, mine)).scalar_one())

    def untold(self, tracker: str, campaign: CampaignRecord) -> int:
        """Count what happened to one campaign that a tracker has not been told."""
        return max(0, campaign.sequence - self.cursor(tracker, campaign.campaign_id))

    def untold_since(self, tracker: str) -> int | None:
        """Return when the oldest thing happened that a tracker has not been told; None where it knows everything."""
        mine = (cursors.c.campaign_id == campaigns.c.id) & (cursors.c.tracker == tracker)
        told = func.coalesce(cursors.c.sequence, 0)
        behind = select(campaigns.c.id, told.label("told")).join(submissions).outerjoin(cursors, mine)
        with self._reading() as connection:
            found = []
            for row in connection.execute(behind.where(campaigns.c.sequence > told)).all():
                untold = (events.c.campaign_id == row.id) & (events.c.sequence > row.told)
                found.append(connection.execute(select(func.min(events.c.at)).where(untold)).scalar())
        return min((int(at) for at in found if at is not None), default=None)

    def num_set_aside(self, campaign_ids: Collection[str]) -> dict[str, int]:
        """Count by campaign the records that the ledger cannot hold; those without any are left out."""
        mine = (dead_letters.c.tracker == SPOOL) & dead_letters.c.campaign_id.in_(campaign_ids)
        query = select(dead_letters.c.campaign_id, func.count()).where(mine).group_by(dead_letters.c.campaign_id)
        with self._reading() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(query)}

    def num_buried(self, tracker: str) -> int:
        """Count what a tracker will never take."""
        with self._reading() as connection:
            query = select(func.count()).select_from(dead_letters).where(dead_letters.c.tracker == tracker)
            return int(connection.execute(query).scalar_one())


def _changed(campaign_id: str, after: int) -> CompoundSelect[Any]:
    """Choose the trials whose outcome may be another one than it was at a number of the campaign's sequence."""
    moved = select(events.c.trial).where(
        events.c.campaign_id == campaign_id, events.c.sequence > after, events.c.trial.is_not(None)
    )
    same = (trials.c.campaign_id == observations.c.campaign_id) & (trials.c.number == observations.c.trial)
    reported = select(observations.c.trial).join(trials, same)
    reported = reported.where(observations.c.campaign_id == campaign_id, observations.c.sequence > after)
    return moved.union(reported.where(trials.c.state.in_([each for each in TrialState if each.is_terminal])))


_same_campaign = submissions.c.campaign_id == observations.c.campaign_id


def campaign_key(submission: Submission, order_by: CampaignOrder) -> Key:
    """Return the key after which the page behind a submission begins."""
    return (
        getattr(submission.campaign if "created" in order_by else submission, order_by.lstrip("-")),
        submission.campaign_id,
    )


def trial_key(trial: TrialRecord, order_by: TrialOrder) -> Key:
    """Return the key after which the page behind a trial begins."""
    if order_by == "number":
        return (trial.number,)
    value = trial.objective
    if value is None or value - value != 0:  # NaN and infinities
        return (1, 0.0, trial.number)
    return (0, -value if order_by.startswith("-") else value, trial.number)


def _page(
    query: Select[Any], columns: list[Any], after: Key | None, limit: int, *, is_descending: bool = False
) -> Select[Any]:
    """Order by columns and begin after a key: (a, b) > (x, y) is a > x or (a = x and b > y)."""
    if after is not None:
        beyond = []
        for depth, column in enumerate(columns):
            equal = [same == value for same, value in zip(columns[:depth], after[:depth], strict=True)]
            further = column < after[depth] if is_descending else column > after[depth]
            beyond.append(and_(*equal, further))
        query = query.where(or_(*beyond))
    return query.order_by(*(column.desc() if is_descending else column for column in columns)).limit(limit)
