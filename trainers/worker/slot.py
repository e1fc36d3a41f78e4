"""A worker slot: a process that trains cohorts of trials as long as there is work for it.

A slot asks the driver for a command, does what it says (drop these members, take in those, write a checkpoint, end),
trains every member that is not held to its next report step, and hands the reports over. Reports and commands are
numbered: the command on report `k` must be there before the slot goes on, and command 0 gives it its first work.

A checkpoint is written after the command on its members' last reports, never before: whatever a checkpoint knows, the
driver has on disk already. A lost worker therefore costs the steps since its last checkpoint and no observation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from spectune.trainers import checkpoints
from spectune.trainers.engines.cohorts import Cohort, cohort_for
from spectune.trainers.engines.fused_step_check import FusionCheck, FusionSampler
from spectune.trainers.engines.plan import Plan, make_plan
from spectune.trainers.engines.solo import Outcome
from spectune.trainers.engines.structure import structure_of
from spectune.trainers.user_code import failure_text
from spectune.trainers.worker.arithmetic import Arithmetic, Execution, execution_here, pin_arithmetic
from spectune.trainers.worker.compiler import leave_compiler_unloaded
from spectune.trainers.worker.messages import Assignment, MemberReport, SlotCommand, SlotReport, TrialEnding

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlotOptions:
    """What is the same for all trials of a slot.

    Attributes:
        checkpoints: The root of the campaign's checkpoints, those of earlier attempts included.
        folder: Where below it this slot's attempt writes; each slot has a folder of its own name in it.
        checkpoint_seconds: Write a checkpoint when the last one is older than this.
        cpus: Threads to train with.
        gpus: The part of a GPU to train on; 0 for none.
        verify_fusion: Whether to compare, now and then, a fused step with the step alone.
        working_folder: Where the code of trials finds itself; empty where that is its machine's business.
        arithmetic: Which instructions the processor uses.
        output: Where the process keeps what is printed, a file for each slot; empty where it is left alone.
        file_mask: The permissions that files of the slot's process do not have: checkpoints are their owner's.
    """

    checkpoints: str
    folder: str
    checkpoint_seconds: float
    cpus: int
    gpus: float = 0.0
    verify_fusion: bool = False
    working_folder: str = ""
    arithmetic: Arithmetic = Arithmetic.FASTEST
    output: str = ""
    file_mask: int = 0o077

    @property
    def num_devices(self) -> float:
        """What a second of this slot's is charged with: the part of a GPU that it has, or one processor's second."""
        return self.gpus or 1.0


class BoardLostError(Exception):
    """The driver's board does not answer: the slot ends, and its trials go on elsewhere."""


class CommandSource(Protocol):
    """Where a slot's commands come from; in production an actor beside the driver."""

    def command(self, slot: str, number: int) -> SlotCommand:
        """Wait for the command on a report."""

    def is_stopping(self) -> bool:
        """Return whether the driver wants every slot to end. Raises BoardLostError, like `command`."""


class Slot:
    """Follows commands and makes reports; knows no Ray.

    Args:
        name: The slot's name.
        commands: Where its commands come from; `is_stopping` is asked at most once a second inside a stretch.
        options: What is the same for all its trials.
        attribute: Told of which trials the code is that runs next.
    """

    def __init__(
        self,
        name: str,
        commands: CommandSource,
        options: SlotOptions,
        attribute: Callable[[Sequence[int]], object] = lambda trials: None,
    ) -> None:
        prepare_process(arithmetic=options.arithmetic, cpus=options.cpus, gpus=options.gpus)
        self._name = name
        self._commands = commands
        self._attribute = attribute
        self._options = options
        self._folder = Path(options.checkpoints) / options.folder / name
        self._assignments: dict[int, Assignment] = {}
        self._cohorts: dict[object, Cohort] = {}
        self._sampler = FusionSampler() if options.verify_fusion else None
        self._checks: dict[int, FusionCheck] = {}
        self._number = 0
        self._saved_at = time.monotonic()

    def execution(self) -> Execution:
        """Return on what this slot computes."""
        return execution_here(threads=self._options.cpus, is_on_gpu=self._options.gpus > 0)

    def step(self) -> SlotReport | None:
        """Follow the next command and train one stretch.

        Returns:
            What was done; None where the command was to end.
        """
        command = self._commands.command(self._name, self._number)
        self._evict(command.evict)
        unsaved = self._checkpoint(force=command.checkpoint)
        if command.finish:
            return None
        plans = _plans(command)
        reports = self._fail({trial: text for trial, text in unsaved.items() if trial not in command.hold})
        reports += self._admit(command.admit)
        for cohort in self._cohorts.values():
            reports += self._train(cohort, held=command.hold)
        self._number += 1
        checks, self._checks = self._checks, {}
        return SlotReport(self._number, reports, plans, checks)

    # Members

    def _evict(self, trials: Sequence[int]) -> None:
        for cohort in self._cohorts.values():
            if mine := [trial for trial in trials if trial in cohort.trials]:
                cohort.evict(mine)
        for trial in trials:
            self._assignments.pop(trial, None)
        self._cohorts = {key: cohort for key, cohort in self._cohorts.items() if cohort.trials}

    def _admit(self, assignments: Sequence[Assignment]) -> list[MemberReport]:
        """Take trials in, each from its latest checkpoint; where its code refuses to start, say so."""
        is_any_old = any(not assignment.is_new for assignment in assignments)
        shelf = checkpoints.Shelf(Path(self._options.checkpoints)) if is_any_old else None
        failures = []
        for assignment in assignments:
            start = time.monotonic()
            self._assignments[assignment.trial] = assignment
            self._attribute((assignment.trial,))
            try:
                key = assignment.is_alone, structure_of(assignment.setting)
                if key not in self._cohorts:
                    self._cohorts[key] = cohort_for(assignment.setting, is_alone=assignment.is_alone)
                cohort = self._cohorts[key]
                cohort.admit(assignment.trial, assignment.setting, _latest(shelf, assignment))
            except BaseException as error:  # a user's code can raise anything, the exit of a script among it
                failures.append(_failure(assignment.trial, 0, failure_text(error), self._charge(start)))
        self._cohorts = {key: cohort for key, cohort in self._cohorts.items() if cohort.trials}
        return failures

    def _fail(self, failures: Mapping[int, str]) -> list[MemberReport]:
        """Drop members whose code failed outside training."""
        steps = {trial: cohort.step(trial) for cohort in self._cohorts.values() for trial in cohort.trials}
        reports = [_failure(trial, steps[trial], text, 0.0) for trial, text in failures.items()]
        for cohort in self._cohorts.values():
            cohort.evict([trial for trial in failures if trial in cohort.trials])
        self._cohorts = {key: cohort for key, cohort in self._cohorts.items() if cohort.trials}
        return reports

    def _checkpoint(self, *, force: bool) -> dict[int, str]:
        """Write a checkpoint if one is due or asked for.

        Where the disk refuses it, training goes on: what a checkpoint is worth is the steps since the one before.

        Returns:
            The failures of members whose state cannot be taken: a module of a user's can put anything into it.
        """
        now = time.monotonic()
        if not self._cohorts or not (force or now - self._saved_at >= self._options.checkpoint_seconds):
            return {}
        states, failures = self._states()
        try:
            checkpoints.save(self._folder, self._number, states)
            checkpoints.prune(self._folder)
        except OSError as error:
            _log.warning("no checkpoint, so the loss of this worker would cost the steps since the last: got %s", error)
        self._saved_at = time.monotonic()
        return failures

    def _states(self) -> tuple[dict[int, checkpoints.State], dict[int, str]]:
        states, failures = {}, {}
        for cohort in self._cohorts.values():
            for trial in cohort.trials:
                self._attribute((trial,))
                try:
                    state = cohort.state(trial)
                    checkpoints.check_state(state)
                    states[trial] = state
                except BaseException as error:  # a user's code can raise anything
                    failures[trial] = failure_text(error)
        return states, failures

    # Training

    def _train(self, cohort: Cohort, *, held: Sequence[int]) -> list[MemberReport]:
        """Train a cohort's members to their next report steps and report."""
        trials = [trial for trial in cohort.trials if trial not in held]
        targets = {trial: self._next_report_step(cohort, trial) for trial in trials}
        if not targets:
            return []
        start = time.monotonic()
        self._attribute(trials)
        try:
            self._verify(cohort, trials)
            outcomes = cohort.advance(targets, should_stop=self._commands.is_stopping)
        except BoardLostError:
            raise
        except BaseException as error:  # a user's code can raise anything
            ending = TrialEnding.LOST if len(trials) > 1 else TrialEnding.FAILED
            seconds, text = self._charge(start) / len(trials), failure_text(error)
            return [_failure(each, cohort.step(each), text, seconds, ending) for each in trials]
        measured = cohort.report([trial for trial in trials if outcomes[trial] is not Outcome.INTERRUPTED])
        seconds = self._charge(start) / len(trials)
        return [_report(cohort, trial, outcomes[trial], measured.get(trial, {}), seconds) for trial in trials]

    def _charge(self, start: float) -> float:
        """Return the device seconds since a moment."""
        return (time.monotonic() - start) * self._options.num_devices

    def _verify(self, cohort: Cohort, trials: Sequence[int]) -> None:
        if self._sampler is not None:
            settings = {trial: self._assignments[trial].setting for trial in trials}
            with suppress(torch.OutOfMemoryError):  # there may be no room for one more; training goes on
                self._checks |= self._sampler.check(cohort, trials, settings)

    def _next_report_step(self, cohort: Cohort, trial: int) -> int:
        return next(step for step in self._assignments[trial].report_steps if step > cohort.step(trial))


def prepare_process(*, arithmetic: Arithmetic, cpus: int, gpus: float) -> None:
    """Prepare a process that trains, before its first computation.

    Args:
        arithmetic: Which instructions its processor uses.
        cpus: How many threads train.
        gpus: The part of a GPU that it may fill; 0 for none.

    Raises:
        UnavailableArithmeticError: This process cannot compute so.
    """
    leave_compiler_unloaded()
    pin_arithmetic(arithmetic)
    torch.set_num_threads(cpus)
    if 0.0 < gpus < 1.0:
        torch.cuda.set_per_process_memory_fraction(gpus)  # neighbors on the device need theirs


def _plans(command: SlotCommand) -> dict[int, Plan]:
    """Find out what the command asks; a trial that cannot even be tried out says why where it trains."""
    plans = {}
    for assignment in command.admit if command.plan_for else ():
        with suppress(BaseException):
            plans[assignment.trial] = make_plan(assignment.setting, most=command.plan_for)
    return plans


def _latest(shelf: checkpoints.Shelf | None, assignment: Assignment) -> checkpoints.State | None:
    if shelf is None or assignment.is_new:
        return None
    latest = shelf.latest(assignment.trial)
    for refusal in latest.refused:
        _log.warning("trial %d: %s", assignment.trial, refusal)
    return latest.state


def _report(
    cohort: Cohort, trial: int, outcome: Outcome, measured: Mapping[str, float] | str, seconds: float
) -> MemberReport:
    if isinstance(measured, str):
        return _failure(trial, cohort.step(trial), measured, seconds)
    reason = cohort.reason(trial)
    return MemberReport(
        trial, cohort.step(trial), TrialEnding(outcome), dict(measured), reason, seconds, _milliseconds()
    )


def _failure(
    trial: int, step: int, message: str, seconds: float, ending: TrialEnding = TrialEnding.FAILED
) -> MemberReport:
    return MemberReport(trial, step, ending, {}, message, seconds, _milliseconds())


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
