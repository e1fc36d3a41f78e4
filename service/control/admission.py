"""Whose turn it is: the highest priority first, then the owner who holds the fewest CPUs, then who came first.

The queue is strict: what does not fit holds back what stands behind it, so that a large campaign is never starved by
small ones. One that is larger than the whole service runs alone. GPUs are counted where it is known how many there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from spectune.service.campaign.model.submission import Submission

_ROUNDING = 1e-6  # of a GPU: three times 0.1 and 0.7 are one


@dataclass(frozen=True)
class Capacity:
    """What all running campaigns share; `num_gpus` is None where nobody has said how many there are."""

    num_cpus: int
    max_running: int
    num_gpus: float | None = None


@dataclass
class _Held:
    """What those hold that run: how many they are, the CPUs of each owner, and all GPUs."""

    num_running: int
    cpus: Counter[str]
    gpus: float

    def add(self, submission: Submission, capacity: Capacity) -> None:
        self.num_running += 1
        self.cpus[submission.owner] += _share(submission, capacity)
        self.gpus += _gpu_share(submission, capacity)


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
    held = _Held(0, Counter(), 0.0)
    for submission in running:
        held.add(submission, capacity)
    pausing = [each for each in queued if each.not_before > now]
    ready = [each for each in queued if each.not_before <= now]
    launched: list[Submission] = []
    waiting: list[Place] = []
    while ready:
        turn = min(ready, key=lambda each: _rank(each, held))
        ready.remove(turn)
        obstacle = _obstacle(turn, held, capacity)
        if obstacle is not None:
            behind = sorted(ready, key=lambda each: _rank(each, held))
            waiting.append(Place(turn, 1, obstacle))
            waiting += [Place(each, place, "waits for its turn") for place, each in enumerate(behind, start=2)]
            break
        held.add(turn, capacity)
        launched.append(turn)
    waiting += [Place(each, None, f"waits until {_time(each.not_before)} after a lost attempt") for each in pausing]
    return Admission(tuple(launched), tuple(waiting))


def _rank(submission: Submission, held: _Held) -> tuple[int, int, int, str]:
    campaign = submission.campaign
    return (-submission.priority, held.cpus[submission.owner], campaign.created_at, campaign.campaign_id)


def _share(submission: Submission, capacity: Capacity) -> int:
    return min(submission.num_cpus, capacity.num_cpus)


def _gpu_share(submission: Submission, capacity: Capacity) -> float:
    return submission.num_gpus if capacity.num_gpus is None else min(submission.num_gpus, capacity.num_gpus)


def _obstacle(submission: Submission, held: _Held, capacity: Capacity) -> str | None:
    used = held.cpus.total()
    if held.num_running >= capacity.max_running:
        return f"the service runs {held.num_running} campaigns already, its most"
    if used + _share(submission, capacity) > capacity.num_cpus:
        return f"needs {submission.num_cpus} CPUs, {used} of {capacity.num_cpus} are in use"
    gpus = _gpu_share(submission, capacity)
    if capacity.num_gpus is not None and gpus and held.gpus + gpus > capacity.num_gpus + _ROUNDING:
        return f"needs {submission.num_gpus:g} GPUs, {held.gpus:g} of {capacity.num_gpus:g} are in use"
    return None


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).strftime("%H:%M:%S UTC")
