"""Summaries of campaigns for lists: their trials counted, and the best points of their arms.

A list shows many campaigns, some with ten thousand trials, so the database reads the trials and hands over few rows:
counts, and those trials whose point may be its arm's best. Which of them it is, `leaderboard.py` alone decides.
A database adds in an order of its own, so a mean is known to it only up to rounding, which `_ROUNDING` is far above.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, select, tuple_

from spectune.service.campaign.analysis.leaderboard import ArmStanding, leaderboard
from spectune.service.campaign.analysis.summary import Summary
from spectune.service.campaign.model.lifecycle import STOPPED_BY_USER, TrialState
from spectune.service.campaign.model.progress import Tally
from spectune.service.campaign.model.records import CampaignRecord, Phase, TrialOutcome
from spectune.service.ledger import rows
from spectune.service.ledger.tables import trials

_ROUNDING = 1e-9
_TELL_NOTHING = (TrialState.FAILED, TrialState.LOST, TrialState.CANCELLED)  # of a point, as `outcomes.py` has it
_SCALE = 2.0**-10  # exact, and the sum over a thousand seeds of the largest numbers is still a number
_TINY = (
    1e-290  # PostgreSQL refuses a product that underflows; below this a value counts as zero, and as no more certain
)
_MAX_LISTED = 2000  # points in a statement
_Point: TypeAlias = tuple[str, int, str, int]
_OUTCOME = ("campaign_id", "number", "arm", "point", "config", "state", "objective", "objective_kind")


def phase_of_trial() -> ColumnElement[str]:
    """Return what a trial is for; what a trial of the search was asked for says nothing of it."""
    return func.coalesce(trials.c.ask["phase"].as_string(), Phase.SEARCH.value)


def read_tallies(connection: Connection, campaign_ids: Collection[str]) -> dict[str, list[Tally]]:
    """Count the trials of some campaigns, by id."""
    found: dict[str, list[Tally]] = {campaign_id: [] for campaign_id in campaign_ids}
    is_unwanted = case((trials.c.reason == STOPPED_BY_USER, 1), else_=0).label("is_unwanted")
    keys = (trials.c.campaign_id, trials.c.arm, trials.c.state, is_unwanted)
    totals = {"num_steps": func.sum(trials.c.last_step), "device_seconds": func.sum(trials.c.device_seconds)}
    counted = (func.count().label("num_trials"), *(total.label(name) for name, total in totals.items()))
    query = select(*keys, *counted).where(trials.c.campaign_id.in_(campaign_ids)).group_by(*keys)
    for row in connection.execute(query):
        counts = int(row.num_trials), int(row.num_steps), float(row.device_seconds)
        found[row.campaign_id].append(Tally(row.arm, TrialState(row.state), *counts, bool(row.is_unwanted)))
    return found


def read_summaries(connection: Connection, campaigns: Sequence[CampaignRecord]) -> dict[str, Summary]:
    """Summarize the trials of some campaigns, by id."""
    tallies = read_tallies(connection, [each.campaign_id for each in campaigns])
    outcomes: defaultdict[str, list[TrialOutcome]] = defaultdict(list)
    points = {(row.campaign_id, row.arm, row.phase, row.point) for row in connection.execute(_best_points(campaigns))}
    for row in connection.execute(_of_points(points)) if points else ():
        if (row.campaign_id, row.arm, row.phase, row.point) in points:
            outcomes[row.campaign_id].append(rows.outcome(row))
    return {
        each.campaign_id: Summary(
            tallies=tallies[each.campaign_id],
            standings=_standings(each, outcomes[each.campaign_id], tallies[each.campaign_id]),
        )
        for each in campaigns
    }


def _best_points(campaigns: Sequence[CampaignRecord]) -> Select[tuple[object, ...]]:
    """Choose the points that completed and may be the best of their arm, in the search and in the finals."""
    maximized = [each.campaign_id for each in campaigns if each.objective["mode"] == "maximize"]
    columns = [trials.c[name] for name in ("campaign_id", "arm", "point", "state", "objective", "objective_kind")]
    among = trials.c.campaign_id.in_([each.campaign_id for each in campaigns])
    mine = select(*columns, phase_of_trial().label("phase")).where(among).subquery()
    is_good = and_(mine.c.state == TrialState.COMPLETED, mine.c.objective_kind == "finite")
    num_good = func.sum(case((is_good, 1), else_=0))
    num_silent = func.sum(case((mine.c.state.in_(_TELL_NOTHING), 1), else_=0))
    sign = case((mine.c.campaign_id.in_(maximized), -1.0), else_=1.0)
    is_tiny = and_(is_good, func.abs(mine.c.objective) < _TINY)
    cost = case((is_tiny, 0.0), (is_good, sign * _SCALE * mine.c.objective))
    doubt = _ROUNDING * func.max(func.abs(cost)) + _TINY
    keys = (mine.c.campaign_id, mine.c.arm, mine.c.phase, mine.c.point)
    points = select(*keys, (func.avg(cost) - doubt).label("low"), (func.avg(cost) + doubt).label("high"))
    points = points.where(mine.c.phase != Phase.AUDIT.value).group_by(*keys)
    completed = points.having(and_(num_good > 0, num_good + num_silent == func.count())).cte("completed")
    arm = (completed.c.campaign_id, completed.c.arm, completed.c.phase)
    least = select(*arm, func.min(completed.c.high).label("high")).group_by(*arm).cte("least")
    same_arm = and_(*(completed.c[name] == least.c[name] for name in ("campaign_id", "arm", "phase")))
    chosen = select(*arm, completed.c.point).join(least, same_arm)
    return chosen.where(completed.c.low <= least.c.high)


def _of_points(points: Collection[_Point]) -> Select[tuple[object, ...]]:
    """Read the trials of some points, or of all points of their campaigns where the points are too many to list."""
    query = select(*(trials.c[name] for name in _OUTCOME), phase_of_trial().label("phase"))
    query = query.where(trials.c.campaign_id.in_({campaign_id for campaign_id, *_ in points}))
    if len(points) > _MAX_LISTED:
        return query
    places = [(campaign_id, arm, point) for campaign_id, arm, _, point in points]
    return query.where(tuple_(trials.c.campaign_id, trials.c.arm, trials.c.point).in_(places))


def _standings(
    campaign: CampaignRecord, outcomes: Iterable[TrialOutcome], tallies: Iterable[Tally]
) -> tuple[ArmStanding, ...]:
    """Rank the points that may be the best, and count all trials."""
    counts: defaultdict[int, Counter[TrialState]] = defaultdict(Counter)
    for each in tallies:
        counts[each.arm][each.state] += each.num_trials
    num_arms, mode = len(campaign.specification["arms"]), campaign.objective["mode"]
    return tuple(
        replace(
            standing,
            ranked=standing.ranked[:1],
            finals=standing.finals[:1],
            num_trials={state: counts[standing.arm][state] for state in TrialState},
        )
        for standing in leaderboard(outcomes, num_arms=num_arms, mode=mode)
    )
