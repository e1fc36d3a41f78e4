"""What the driver and a worker slot tell each other: commands with assignments one way, reports the other.

Reports and commands are numbered: command `k` answers report `k`, and command 0 gives a slot its first work. They cross
between processes, pickled by Ray; `slot.py` says in which order they are acted on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from spectune.trainers.engines.fused_step_check import FusionCheck
from spectune.trainers.engines.plan import Plan
from spectune.trainers.setting import TrialSetting


class TrialEnding(StrEnum):
    """How a member's stretch ended."""

    REACHED = "reached"  # the next report step
    DIVERGED = "diverged"  # by the definition of `spectune.trainers.engines.divergence`
    FAILED = "failed"  # its code raised
    LOST = "lost"  # the code of its cohort raised, and which member is to blame is not known
    INTERRUPTED = "interrupted"  # the driver is stopping


@dataclass(frozen=True)
class Assignment:
    """A trial given to a slot.

    Attributes:
        trial: Its number.
        setting: What to train and how.
        report_steps: Absolute steps at which to report, ascending; the last is the end.
        is_new: Whether no slot had it before, so that there is no checkpoint to look for.
        is_alone: Whether it fills a slot, so that the solo engine trains it.
    """

    trial: int
    setting: TrialSetting
    report_steps: tuple[int, ...]
    is_new: bool = True
    is_alone: bool = False


@dataclass(frozen=True)
class SlotCommand:
    """What the driver wants of a slot after a report.

    Attributes:
        evict: Members to drop.
        admit: Trials to take in.
        hold: Members that wait for others, in the slot and without training.
        plan_for: Where not 0, find out how many trials like the admitted one are best trained together, up to so many.
        checkpoint: Write a checkpoint, due or not.
        finish: End.
    """

    evict: tuple[int, ...] = ()
    admit: tuple[Assignment, ...] = ()
    hold: tuple[int, ...] = ()
    plan_for: int = 0
    checkpoint: bool = False
    finish: bool = False


@dataclass(frozen=True)
class MemberReport:
    """What a member did in one stretch.

    Attributes:
        trial: Its number.
        step: The step it stands at.
        ending: How the stretch ended.
        metrics: What the engine measured; empty where the stretch was interrupted, lost or failed.
        message: Why it diverged or failed; the traceback of its code.
        seconds: Its share of the stretch's device seconds.
        produced_at: Milliseconds since the epoch.
    """

    trial: int
    step: int
    ending: TrialEnding
    metrics: dict[str, float]
    message: str
    seconds: float
    produced_at: int


@dataclass(frozen=True)
class SlotReport:
    """What a slot did in one stretch.

    Attributes:
        number: Counts the slot's reports from 1.
        members: What each member did; one that was held is left out.
        plans: What was found out for the trials that the command asked to plan for.
        checks: What came of comparing a fused step of a trial with the step alone.
    """

    number: int
    members: list[MemberReport]
    plans: dict[int, Plan] = field(default_factory=dict)
    checks: dict[int, FusionCheck] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Say little: Tune writes out every result for a log of its own that is off."""
        return f"SlotReport({self.number}, {len(self.members)} members)"
