"""A worker slot: the one place where training meets Ray Tune.

A Tune trial is not one of our trials but a *slot*: a process that lives as long as there is work for it. It asks the
driver for a verdict, does what it says (drop these members, take in those, write checkpoints, end), trains every
member to its next report step, and hands the reports to Tune. Reports and verdicts are numbered: the verdict on report
`k` must be there before the slot goes on, and verdict 0 gives it its first work.

A member's checkpoint is written after the verdict on its last report, never before: whatever a checkpoint knows, the
driver has on disk already. A lost worker therefore costs the steps since its last checkpoint and no observation.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray import tune
from ray.exceptions import RayError

from trainers import checkpoints
from trainers.setting import TrialSetting
from trainers.solo import Outcome, SoloTrial

_log = logging.getLogger(__name__)


class Ending(StrEnum):
    """How a member's stretch ended."""

    REACHED = "reached"  # the next report step
    DIVERGED = "diverged"  # by the definition of `trainers.solo`
    FAILED = "failed"  # its code raised
    INTERRUPTED = "interrupted"  # the driver is stopping


@dataclass(frozen=True)
class Assignment:
    """A trial given to a slot.

    Attributes:
        trial: Its number.
        setting: What to train and how.
        report_steps: Absolute steps at which to report, ascending; the last is the end.
        checkpoint_folder: Where this attempt writes the member's checkpoints.
        earlier_folders: Folders of earlier attempts, the latest first, to restore from.
        checkpoint_seconds: Write a checkpoint when the last one is older than this.
        cpus: Threads to train with.
    """

    trial: int
    setting: TrialSetting
    report_steps: tuple[int, ...]
    checkpoint_folder: str
    earlier_folders: tuple[str, ...]
    checkpoint_seconds: float
    cpus: int


@dataclass(frozen=True)
class Verdict:
    """What the driver wants of a slot after a report."""

    evict: tuple[int, ...] = ()
    admit: tuple[Assignment, ...] = ()
    checkpoint: bool = False
    finish: bool = False


@dataclass(frozen=True)
class MemberReport:
    """What a member did in one stretch.

    Attributes:
        trial: Its number.
        step: The step it stands at.
        ending: How the stretch ended.
        metrics: What `SoloTrial.report` measured; empty where the stretch was interrupted or failed.
        message: Why it diverged or failed; the traceback of its code.
        seconds: Wall time of the stretch.
        produced_at: Milliseconds since the epoch.
    """

    trial: int
    step: int
    ending: Ending
    metrics: dict[str, float]
    message: str
    seconds: float
    produced_at: int


class BoardLostError(Exception):
    """The driver's board does not answer: the slot ends, and its trials go on elsewhere."""


class VerdictSource(Protocol):
    """Where a slot's verdicts come from; in production an actor beside the driver."""

    def verdict(self, slot: str, number: int) -> Verdict:
        """Wait for the verdict on a report."""

    def is_stopping(self) -> bool:
        """Tell whether the driver wants every slot to end. Raises BoardLostError, like `verdict`."""


class ActorVerdicts:
    """Verdicts from the driver's actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def verdict(self, slot: str, number: int) -> Verdict:
        """Wait for the verdict on a report."""
        answer = _ask(self._actor.verdict, slot, number)
        assert isinstance(answer, Verdict)
        return answer

    def is_stopping(self) -> bool:
        """Tell whether the driver wants every slot to end."""
        return bool(_ask(self._actor.is_stopping))


def _ask(method: Any, *arguments: Any) -> Any:
    try:
        return ray.get(method.remote(*arguments))
    except RayError as error:
        raise BoardLostError(str(error)) from error


class Member:
    """One trial inside a slot."""

    def __init__(self, assignment: Assignment) -> None:
        torch.set_num_threads(assignment.cpus)
        self._assignment = assignment
        self._trial = SoloTrial(assignment.setting)
        self._folder = Path(assignment.checkpoint_folder)
        self._restore([self._folder, *map(Path, assignment.earlier_folders)])
        self._saved_at = time.monotonic()

    def _restore(self, folders: Sequence[Path]) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        for folder in folders:
            latest = checkpoints.latest(folder)
            for refusal in latest.refused:
                _log.warning("trial %d: %s", self._assignment.trial, refusal)
            if latest.state is not None:
                self._trial.restore(latest.state)
                return

    def advance(self, should_stop: Callable[[], bool]) -> MemberReport:
        """Train to the next report step and report."""
        start = time.monotonic()
        target = next(step for step in self._assignment.report_steps if step > self._trial.step)
        try:
            outcome = self._trial.advance(target, should_stop=should_stop)
            metrics = {} if outcome is Outcome.INTERRUPTED else self._trial.report()
        except BoardLostError:
            raise
        except Exception:
            return self._report(start, Ending.FAILED, {}, traceback.format_exc())
        return self._report(start, Ending(outcome), metrics, self._trial.reason)

    def _report(self, start: float, ending: Ending, metrics: dict[str, float], message: str) -> MemberReport:
        return MemberReport(
            trial=self._assignment.trial,
            step=self._trial.step,
            ending=ending,
            metrics=metrics,
            message=message,
            seconds=time.monotonic() - start,
            produced_at=time.time_ns() // 1_000_000,
        )

    def checkpoint(self, *, force: bool) -> None:
        """Write a checkpoint if one is due or asked for."""
        if force or time.monotonic() - self._saved_at >= self._assignment.checkpoint_seconds:
            checkpoints.save(self._folder, self._trial.step, self._trial.state())
            checkpoints.prune(self._folder)
            self._saved_at = time.monotonic()


class Slot:
    """The work of one slot, without Ray: follows verdicts and makes reports.

    Args:
        name: The slot's name.
        verdicts: Where its verdicts come from; `is_stopping` is asked at most once a second inside a stretch.
    """

    def __init__(self, name: str, verdicts: VerdictSource) -> None:
        self._name = name
        self._verdicts = verdicts
        self._members: dict[int, Member] = {}
        self._number = 0

    def step(self) -> tuple[int, list[MemberReport]] | None:
        """Follow the next verdict and train one stretch.

        Returns:
            The report's number and what each member did; None where the verdict was to end.
        """
        verdict = self._verdicts.verdict(self._name, self._number)
        for trial in verdict.evict:
            self._members.pop(trial, None)
        for member in self._members.values():
            member.checkpoint(force=verdict.checkpoint)
        if verdict.finish:
            return None
        failures = [report for report in map(self._admit, verdict.admit) if report is not None]
        reports = failures + [member.advance(self._verdicts.is_stopping) for member in self._members.values()]
        self._number += 1
        return self._number, reports

    def _admit(self, assignment: Assignment) -> MemberReport | None:
        """Take a trial in; where its code refuses to start, say so."""
        start = time.monotonic()
        try:
            self._members[assignment.trial] = Member(assignment)
        except Exception:
            seconds, now = time.monotonic() - start, time.time_ns() // 1_000_000
            return MemberReport(assignment.trial, 0, Ending.FAILED, {}, traceback.format_exc(), seconds, now)
        return None


class CohortSlot(tune.Trainable):  # type: ignore[misc]
    """The slot as Ray Tune sees it: a class trainable whose result carries the members' reports."""

    def setup(self, config: dict[str, Any], *, verdicts: Any = None) -> None:
        """Prepare the slot.

        Args:
            config: `{"slot": name}`.
            verdicts: The driver's verdict actor.
        """
        self._slot_name = config["slot"]
        self._slot = Slot(self._slot_name, ActorVerdicts(verdicts))

    def step(self) -> dict[str, Any]:
        """Train one stretch; Tune calls this until it says `done`."""
        outcome = self._slot.step()
        if outcome is None:
            return {"slot": self._slot_name, "report_number": -1, "reports": [], "done": True}
        number, reports = outcome
        return {"slot": self._slot_name, "report_number": number, "reports": reports}
