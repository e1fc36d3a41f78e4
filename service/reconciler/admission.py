"""Whose turn it is: the highest priority first, then the owner who holds the fewest CPUs, then who came first.

The queue is strict: what does not fit holds back what stands behind it, so that a large campaign is never starved by
small ones. One that is larger than the whole service runs alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from service.campaign.submission import Submission


@dataclass(frozen=True)
class Capacity:
    """What all running campaigns share."""

    num_cpus: int
    max_running: int


@dataclass(frozen=True)
class Place:
    """A campaign that waits.

    Attributes:
        position: From 1; None where it waits for no other but for its time.
        waiting_for: A sentence.
    """

    submission: Submission
    position: int | None
    waiting_for: str


@dataclass(frozen=True)
class Admission:
    """Who is launched now, in this order, and who waits."""

    launched: tuple[Submission, ...]
    waiting: tuple[Place, ...]


def admit(queued: Sequence[Submission], running: Sequence[Submission], *, capacity: Capacity, now: int) -> Admission:
    """Decide who is launched.

    Args:
        queued: The campaigns that are QUEUED.
        running: Those that hold CPUs.
        capacity: What all share.
        now: Milliseconds since the epoch by the database's clock.
    """
    held: Counter[str] = Counter()
    for submission in running:
        held[submission.owner] += _share(submission, capacity)
    pausing = [each for each in queued if each.not_before > now]
    ready = [each for each in queued if each.not_before <= now]
    launched: list[Submission] = []
    waiting: list[Place] = []
    while ready:
        turn = min(ready, key=lambda each: _rank(each, held))
        ready.remove(turn)
        obstacle = _obstacle(turn, held, len(running) + len(launched), capacity)
        if obstacle is not None:
            behind = sorted(ready, key=lambda each: _rank(each, held))
            waiting.append(Place(turn, 1, obstacle))
            waiting += [Place(each, place, "waits for its turn") for place, each in enumerate(behind, start=2)]
            break
        held[turn.owner] += _share(turn, capacity)
        launched.append(turn)
    waiting += [Place(each, None, f"waits until {_time(each.not_before)} after a lost attempt") for each in pausing]
    return Admission(tuple(launched), tuple(waiting))


def _rank(submission: Submission, held: Counter[str]) -> tuple[int, int, int, str]:
    campaign = submission.campaign
    return (-submission.priority, held[submission.owner], campaign.created_at, campaign.campaign_id)


def _share(submission: Submission, capacity: Capacity) -> int:
    return min(submission.num_cpus, capacity.num_cpus)


def _obstacle(submission: Submission, held: Counter[str], num_running: int, capacity: Capacity) -> str | None:
    used = held.total()
    if num_running >= capacity.max_running:
        return f"the service runs {num_running} campaigns already, its most"
    if used + _share(submission, capacity) > capacity.num_cpus:
        return f"needs {submission.num_cpus} CPUs, {used} of {capacity.num_cpus} are in use"
    return None


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).strftime("%H:%M:%S UTC")
