"""Who trains what: hands trials to slots, takes their reports, and decides what happens next.

The dispatcher touches neither Ray nor disk nor clock. Each stimulus (a slot opened, reported, was lost; the campaign is
to stop) returns a `Decision`: records to be put on the spool first, and verdicts to be given afterwards. A slot whose
next work is not known yet gets its verdict with a later decision.

Order of work: trials that wait (they lost their worker, or are further seeds of a drawn point) by number, then a new
point of the arm that has used the least device time. Trial numbers do not depend on it (`naming.trial_number`).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from service.campaign.budget import Exhausted
from service.campaign.lifecycle import TrialEvent, TrialState
from service.campaign.records import Observation, TrialRecord
from service.driver.arms import Arm, ArmTrial, Fate
from service.ledger import entries
from service.ledger.spool import Record
from trainers.ray_cohort import Assignment, Ending, MemberReport, Verdict

MAX_LOSSES = 3  # workers lost under one trial without a new observation


class StopKind(StrEnum):
    """What a stop means for the trials that are not done."""

    CANCEL = "cancel"  # they are cancelled
    PAUSE = "pause"  # they wait for the next attempt
    LIMIT = "limit"  # they are cancelled: a budget is spent or the target is reached


@dataclass
class Decision:
    """What to write down first and what to tell slots then."""

    records: list[Record] = field(default_factory=list)
    verdicts: list[tuple[str, int, Verdict]] = field(default_factory=list)


@dataclass
class _Slot:
    """A slot's state: its trial, and the number of the verdict that it waits for."""

    trial: ArmTrial | None = None
    waits_for: int | None = 0
    evict: tuple[int, ...] = ()
    held: bool = False  # its trial waits at a rung for others


class Dispatcher:
    """One attempt's membership: which trial is in which slot.

    Args:
        arms: The campaign's arms, each with its study and stopping rule.
        assignment: Makes the assignment of a trial (setting, folders).
        now: The clock, in milliseconds since the epoch.
        limit: Tells from the device seconds used and the best objective seen whether the campaign must end.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        *,
        assignment: Callable[[ArmTrial], Assignment],
        now: Callable[[], int],
        limit: Callable[[float, Sequence[float]], Exhausted | None] = lambda device_seconds, bests: None,
    ) -> None:
        self._arms = arms
        self._limit = limit
        self._device_seconds = 0.0
        self._exhausted: Exhausted | None = None
        self._assignment = assignment
        self._now = now
        self._slots: dict[str, _Slot] = {}
        self._waiting: list[ArmTrial] = []  # PENDING trials by number
        self._stop: StopKind | None = None

    # Stimuli

    def restore(self, trials: Sequence[TrialRecord], observations: Sequence[Observation]) -> Decision:
        """Rebuild everything from the ledger; trials that were RUNNING wait for a worker again."""
        decision = Decision()
        for index, arm in enumerate(self._arms):
            mine = [trial for trial in trials if trial.arm == index]
            numbers = {trial.number for trial in mine}
            made = arm.restore(mine, [each for each in observations if each.trial in numbers])
            decision.records += [self._created(trial) for trial in made]
        for trial in [trial for arm in self._arms for trial in arm.unfinished()]:
            if trial.state is TrialState.RUNNING:
                self._requeue(trial, "the attempt before ended under it", decision)
            else:
                self._wait(trial)
        self._device_seconds = sum(arm.device_seconds for arm in self._arms)
        self._check_limit()
        return self._serve(decision)

    def open_slot(self, slot: str) -> Decision:
        """A new slot asks for its first work."""
        self._slots[slot] = _Slot()
        return self._serve(Decision())

    def take(self, slot: str, number: int, reports: Sequence[MemberReport]) -> Decision:
        """A slot reported."""
        decision = Decision()
        state = self._slots[slot]
        state.waits_for = number
        for report in reports:
            assert state.trial is not None, f"slot {slot} reports without a trial: got trial {report.trial}"
            assert state.trial.number == report.trial, f"slot {slot} has {state.trial.number}: got {report.trial}"
            self._take_report(state, report, decision)
        self._check_limit()
        return self._serve(decision)

    def lose(self, slot: str, message: str) -> Decision:
        """A slot's worker is gone: its trial waits for another, unless it loses workers again and again."""
        decision = Decision()
        state = self._slots.pop(slot)
        trial = state.trial
        if trial is None or trial.state is not TrialState.RUNNING:
            return self._serve(decision)
        if trial.num_losses + 1 < MAX_LOSSES:
            self._requeue(trial, message, decision)
        else:
            text = f"{MAX_LOSSES} workers were lost under it without a new observation; the last: {message}"
            self._end(trial, TrialEvent.FAIL, "worker_lost", text, decision)
        return self._serve(decision)

    def close_slot(self, slot: str) -> None:
        """A slot ended as it was told to."""
        self._slots.pop(slot, None)

    def stop(self, kind: StopKind) -> Decision:
        """The campaign is to stop: slots that wait end now, the others when they have reported."""
        self._stop = kind
        return self._serve(Decision())

    # Questions

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop is not None

    @property
    def exhausted(self) -> Exhausted | None:
        """What ended the campaign before its work was done; None where nothing has."""
        return self._exhausted

    def num_slots_wanted(self) -> int:
        """Count the slots that have work or could get it now; grows by one per arm and slot that is filled."""
        if self._stop is not None:
            return 0
        num_busy = sum(state.trial is not None for state in self._slots.values())
        return num_busy + len(self._waiting) + sum(arm.can_draw() for arm in self._arms)

    def is_over(self) -> bool:
        """Tell whether nothing is left to do: every slot has ended and no work is open."""
        return not self._slots and self.num_slots_wanted() == 0

    # Reports

    def _take_report(self, state: _Slot, report: MemberReport, decision: Decision) -> None:
        trial = state.trial
        assert trial is not None
        is_new = bool(report.metrics) and report.step > trial.last_step
        if is_new:
            decision.records.append(self._observation(trial, report))
            trial.num_losses = 0
        elif report.seconds > 0:
            used = entries.device_seconds(trial=trial.number, seconds=report.seconds, at=report.produced_at)
            decision.records.append(used)
        trial.device_seconds += report.seconds
        self._device_seconds += report.seconds
        match report.ending:
            case Ending.REACHED:
                if is_new:
                    trial.arm.observe(trial, report.step, report.metrics)
                self._judge(state, decision)
            case Ending.DIVERGED:
                if is_new:
                    trial.arm.observe(trial, report.step, report.metrics)
                self._end_in(state, TrialEvent.DIVERGE, "diverged", report.message, decision)
            case Ending.FAILED:
                self._end_in(state, TrialEvent.FAIL, "user_code", report.message, decision)
            case Ending.INTERRUPTED:
                pass

    def _observation(self, trial: ArmTrial, report: MemberReport) -> Record:
        return entries.observation(
            trial=trial.number,
            step=report.step,
            metrics=report.metrics,
            objective=trial.arm.objective(report.metrics),
            device_seconds=report.seconds,
            produced_at=report.produced_at,
        )

    def _judge(self, state: _Slot, decision: Decision) -> None:
        """Decide whether the slot's trial goes on, ends, or is held at a rung until others have come."""
        trial = state.trial
        assert trial is not None
        fate, reason = trial.arm.judge(trial)
        state.held = fate is Fate.WAIT
        if fate is Fate.COMPLETE:
            self._end_in(state, TrialEvent.COMPLETE, "end_of_schedule", reason, decision)
        elif fate is Fate.STOP:
            self._end_in(state, TrialEvent.STOP, "stopping_rule", reason, decision)

    # Moving trials

    def _end_in(self, state: _Slot, event: TrialEvent, reason: str, message: str, decision: Decision) -> None:
        trial = state.trial
        assert trial is not None
        self._end(trial, event, reason, message, decision)
        state.trial, state.held = None, False
        state.evict += (trial.number,)

    def _end(self, trial: ArmTrial, event: TrialEvent, reason: str, message: str, decision: Decision) -> None:
        trial.arm.end(trial, event)
        decision.records.append(self._moved(trial, reason, message))

    def _requeue(self, trial: ArmTrial, message: str, decision: Decision) -> None:
        trial.arm.requeue(trial)
        trial.num_losses += 1
        decision.records.append(entries.trial_lost(trial=trial.number, message=message, at=self._now()))
        self._wait(trial)

    def _wait(self, trial: ArmTrial) -> None:
        """Let a trial wait for a slot; the lowest number is next, since others may wait for it at a rung."""
        insort(self._waiting, trial, key=lambda each: each.number)

    def _moved(self, trial: ArmTrial, reason: str, message: str = "") -> Record:
        return entries.trial_moved(
            trial=trial.number, state=trial.state, reason=reason, message=message, at=self._now()
        )

    # Serving slots

    def _serve(self, decision: Decision) -> Decision:
        """Give every slot that waits its verdict, as far as it is known now."""
        while any(self._serve_slot(name, state, decision) for name, state in self._slots.items()):
            pass
        if self._stop in (StopKind.CANCEL, StopKind.LIMIT):
            self._cancel_waiting(decision)
        return decision

    def _serve_slot(self, name: str, state: _Slot, decision: Decision) -> bool:
        """Give one slot its verdict; tell whether there was one to give."""
        if state.waits_for is None:
            return False
        if self._stop is not None:
            self._let_go(state, decision)
            return self._give(name, state, Verdict(finish=True, checkpoint=self._stop is StopKind.PAUSE), decision)
        if state.held:
            self._judge(state, decision)
        if state.held:
            return False
        if state.trial is not None:
            return self._give(name, state, Verdict(), decision)
        trial = self._next_trial(decision)
        if trial is not None:
            state.trial = trial
            trial.arm.start(trial)
            decision.records.append(self._moved(trial, "assigned", f"slot {name}"))
            return self._give(name, state, Verdict(admit=(self._assignment(trial),)), decision)
        if self._nothing_will_come():
            return self._give(name, state, Verdict(finish=True), decision)
        return False

    def _give(self, name: str, state: _Slot, verdict: Verdict, decision: Decision) -> bool:
        assert state.waits_for is not None
        full = Verdict(evict=state.evict, admit=verdict.admit, checkpoint=verdict.checkpoint, finish=verdict.finish)
        decision.verdicts.append((name, state.waits_for, full))
        state.waits_for, state.evict = None, ()
        return True

    def _nothing_will_come(self) -> bool:
        """Whether a slot without work may end: what is still running can bring no further point."""
        return not any(arm.may_draw() for arm in self._arms)

    def _next_trial(self, decision: Decision) -> ArmTrial | None:
        if self._waiting:
            return self._waiting.pop(0)
        for arm in sorted(self._arms, key=lambda each: (each.device_seconds, each.index)):
            drawn = arm.draw()
            if drawn:
                decision.records += [self._created(trial) for trial in drawn]
                for trial in drawn[1:]:
                    self._wait(trial)
                return drawn[0]
        return None

    def _created(self, trial: ArmTrial) -> Record:
        return entries.trial_created(
            trial=trial.number,
            arm=trial.arm.index,
            point=trial.point,
            seed_index=trial.seed_index,
            config=trial.config,
            ask=trial.ask,
            at=self._now(),
        )

    # Stopping

    def _check_limit(self) -> None:
        """Stop the campaign where it has spent what it may, or has what it wanted."""
        if self._stop is None:
            bests = [arm.best for arm in self._arms if arm.best is not None]
            self._exhausted = self._limit(self._device_seconds, bests)
            self._stop = StopKind.LIMIT if self._exhausted else None

    def _why_cancelled(self) -> tuple[str, str]:
        if self._exhausted is None:
            return "campaign_cancelled", ""
        return self._exhausted.limit.value, self._exhausted.message

    def _let_go(self, state: _Slot, decision: Decision) -> None:
        """Take the trial out of a slot that is about to end."""
        trial = state.trial
        if trial is None:
            return
        if self._stop in (StopKind.CANCEL, StopKind.LIMIT):
            self._end_in(state, TrialEvent.CANCEL, *self._why_cancelled(), decision)
        else:
            state.trial, state.held = None, False
            trial.arm.requeue(trial)
            decision.records.append(self._moved(trial, "campaign_paused"))
            self._wait(trial)

    def _cancel_waiting(self, decision: Decision) -> None:
        for trial in self._waiting:
            self._end(trial, TrialEvent.CANCEL, *self._why_cancelled(), decision)
        self._waiting.clear()
