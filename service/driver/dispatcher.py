"""Who trains what: hands trials to slots, takes their reports, and decides what happens next.

The dispatcher touches neither Ray nor disk nor clock. Each stimulus (a slot opened, reported, was lost; the campaign is
to stop) returns a `Decision`: records to be put on the spool first, and verdicts to be given afterwards. A slot whose
next work is not known yet gets its verdict with a later decision.

Order of work: trials that wait (they lost their worker, or are further seeds of a drawn point) by number, then a new
point of the arm that has used the least device time. Trial numbers do not depend on it (`naming.trial_number`). How
many trials fit into a slot is `Lanes`' business.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from service.campaign.budget import Exhausted
from service.campaign.lifecycle import STOPPED_BY_USER, TrialEvent, TrialState
from service.campaign.records import Observation, TrialRecord
from service.driver.arms import Arm, ArmTrial, Fate
from service.driver.lanes import Lanes
from service.ledger import entries
from service.ledger.spool import Record
from trainers.fused_step_check import FusionCheck
from trainers.plan import Plan
from trainers.slot import Assignment, Ending, MemberReport, SlotReport, Verdict

MAX_LOSSES = 3  # workers lost under one trial, alone in the last of them, without a new observation
HEAD_START_SECONDS = 2.0  # an arm keeps its lanes in a slot until it is so far ahead: cohorts of one arm are faster


class MakeAssignment(Protocol):
    """Makes the assignment of a trial, which is to be alone in its slot or not."""

    def __call__(self, trial: ArmTrial, *, is_alone: bool) -> Assignment:
        """Make it."""


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
    """A slot's state: its members, and the number of the verdict that it waits for."""

    members: dict[int, ArmTrial] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)  # members that wait at a rung for others
    waits_for: int | None = 0
    evict: tuple[int, ...] = ()

    @property
    def is_busy(self) -> bool:
        """Whether a member could train."""
        return len(self.members) > len(self.held)


class Dispatcher:
    """One attempt's membership: which trials are in which slot.

    Args:
        arms: The campaign's arms, each with its study and stopping rule.
        lanes: How many trials fit into a slot.
        assignment: Makes the assignment of a trial.
        now: The clock, in milliseconds since the epoch.
        limit: Tells whether the campaign has spent what it may, or has what it wanted, from its device seconds and the
            best objective of each arm so far.

    Attributes:
        exhausted: What ended the campaign before its work was done, if anything did.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        *,
        lanes: Lanes,
        assignment: MakeAssignment,
        now: Callable[[], int],
        limit: Callable[[float, Sequence[float]], Exhausted | None] = lambda device_seconds, bests: None,
    ) -> None:
        self._arms = arms
        self._lanes = lanes
        self._assignment = assignment
        self._now = now
        self._slots: dict[str, _Slot] = {}
        self._waiting: list[ArmTrial] = []  # PENDING trials by number
        self._stop: StopKind | None = None
        self._unwanted: set[int] = set()
        self._limit = limit
        self.exhausted: Exhausted | None = None

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
        return self.check_limits(decision)

    def open_slot(self, slot: str) -> Decision:
        """A new slot asks for its first work."""
        self._slots[slot] = _Slot()
        return self._serve(Decision())

    def take(self, slot: str, report: SlotReport) -> Decision:
        """A slot reported: everything is entered before anything is judged."""
        decision = Decision()
        state = self._slots[slot]
        state.waits_for = report.number
        self._take_plans(state, report.plans, decision)
        self._take_checks(state, report.checks, decision)
        for member in report.members:
            assert member.trial in state.members, f"slot {slot} has {sorted(state.members)}: got {member.trial}"
        members = [_with_objectives(state.members[each.trial], each) for each in report.members]
        for member in members:
            self._enter(state.members[member.trial], member, decision)
        for member in members:
            self._settle(state, member, decision)
        self._judge(state, [each.trial for each in members if each.ending is Ending.REACHED], decision)
        self._stop_unwanted(state, decision)
        return self.check_limits(decision)

    def lose(self, slot: str, message: str) -> Decision:
        """A slot's worker is gone: its trials wait for another, unless they lose workers again and again."""
        decision = Decision()
        for trial in self._slots.pop(slot).members.values():
            self._lose(trial, message, decision)
        return self._serve(decision)

    def check_limits(self, decision: Decision | None = None) -> Decision:
        """End the campaign if it has spent what it may; ask now and then, for time is spent without reports too."""
        if self._stop is None:
            bests = [arm.best for arm in self._arms if arm.best is not None]
            self.exhausted = self._limit(sum(arm.device_seconds for arm in self._arms), bests)
            self._stop = StopKind.LIMIT if self.exhausted is not None else None
        return self._serve(decision or Decision())

    def close_slot(self, slot: str) -> None:
        """A slot ended as it was told to."""
        self._slots.pop(slot, None)

    def stop(self, kind: StopKind) -> Decision:
        """The campaign is to stop: slots that wait end now, the others when they have reported."""
        self._stop = kind
        return self._serve(Decision())

    def stop_trials(self, numbers: Iterable[int]) -> Decision:
        """Users want these trials to end: those that train do so with their next report."""
        self._unwanted.update(numbers)
        decision = Decision()
        for trial in [each for each in self._waiting if each.number in self._unwanted]:
            self._waiting.remove(trial)
            self._end(trial, TrialEvent.CANCEL, STOPPED_BY_USER, "", decision)
        for state in self._slots.values():
            if state.waits_for is not None:
                self._stop_unwanted(state, decision)
        return self._serve(decision)

    # Questions

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop is not None

    def num_slots_wanted(self) -> int:
        """Count the slots that have work or could get it now; grows by one per arm and slot that is filled."""
        if self._stop is not None:
            return 0
        num_busy = sum(bool(state.members) for state in self._slots.values())
        return num_busy + len(self._waiting) + sum(arm.can_draw() for arm in self._arms)

    def is_over(self) -> bool:
        """Tell whether nothing is left to do: every slot has ended and no work is open."""
        return not self._slots and self.num_slots_wanted() == 0

    # Reports

    def _take_plans(self, state: _Slot, plans: Mapping[int, Plan], decision: Decision) -> None:
        for number, plan in plans.items():
            arm = state.members[number].arm
            self._lanes.learn(arm.index, plan.num_members)
            decision.records.append(entries.planned(trial=number, arm=arm.index, plan=plan.document(), at=self._now()))

    def _take_checks(self, state: _Slot, checks: Mapping[int, FusionCheck], decision: Decision) -> None:
        """Write down how exact fusion is; no further trial of an arm is fused where it is not."""
        for number, check in checks.items():
            arm = state.members[number].arm
            if not check.holds:
                self._lanes.distrust(arm.index)
            decision.records.append(
                entries.fusion_checked(
                    trial=number,
                    arm=arm.index,
                    step=check.step,
                    deviation=check.deviation,
                    tolerance=check.tolerance,
                    at=self._now(),
                )
            )

    def _enter(self, trial: ArmTrial, report: MemberReport, decision: Decision) -> None:
        """Write down what a member did."""
        if report.metrics and report.step > trial.last_step:
            decision.records.append(self._observation(trial, report))
            trial.num_losses = 0
            trial.arm.observe(trial, report.step, report.metrics)
        elif report.seconds > 0:
            used = entries.device_seconds(trial=trial.number, seconds=report.seconds, at=report.produced_at)
            decision.records.append(used)
        trial.arm.charge(trial, report.seconds)

    def _observation(self, trial: ArmTrial, report: MemberReport) -> Record:
        return entries.observation(
            trial=trial.number,
            step=report.step,
            metrics=report.metrics,
            objective=trial.arm.objective(report.metrics),
            device_seconds=report.seconds,
            produced_at=report.produced_at,
        )

    def _judge(self, state: _Slot, numbers: Sequence[int], decision: Decision) -> None:
        """Decide which members go on, which end, and which are held at a rung until others have come."""
        trials = [state.members[number] for number in numbers]
        for arm in self._arms:
            for trial, (fate, reason) in arm.judge([each for each in trials if each.arm is arm]).items():
                self._follow(state, trial, fate, reason, decision)

    def _follow(self, state: _Slot, trial: ArmTrial, fate: Fate, reason: str, decision: Decision) -> None:
        state.held.discard(trial.number)
        if fate is Fate.WAIT:
            state.held.add(trial.number)
        elif fate is Fate.COMPLETE:
            self._end_in(state, trial, TrialEvent.COMPLETE, "end_of_schedule", reason, decision)
        elif fate is Fate.STOP:
            self._end_in(state, trial, TrialEvent.STOP, "stopping_rule", reason, decision)

    def _settle(self, state: _Slot, report: MemberReport, decision: Decision) -> None:
        """Move a member whose stretch did not reach its step."""
        match report.ending:
            case Ending.DIVERGED:
                trial = state.members[report.trial]
                self._end_in(state, trial, TrialEvent.DIVERGE, "diverged", report.message, decision)
            case Ending.FAILED:
                trial = state.members[report.trial]
                self._end_in(state, trial, TrialEvent.FAIL, "user_code", report.message, decision)
            case Ending.LOST:
                trial = self._take_out(state, report.trial)
                self._lose(trial, report.message, decision)
            case Ending.REACHED | Ending.INTERRUPTED:
                pass

    def _stop_unwanted(self, state: _Slot, decision: Decision) -> None:
        """End members that users want to end; to the search they are as if they had never been tried."""
        for number in sorted(self._unwanted.intersection(state.members)):
            self._end_in(state, state.members[number], TrialEvent.CANCEL, STOPPED_BY_USER, "", decision)

    # Moving trials

    def _end_in(
        self, state: _Slot, trial: ArmTrial, event: TrialEvent, reason: str, message: str, decision: Decision
    ) -> None:
        self._take_out(state, trial.number)
        self._end(trial, event, reason, message, decision)

    def _take_out(self, state: _Slot, number: int) -> ArmTrial:
        state.held.discard(number)
        state.evict += (number,)
        return state.members.pop(number)

    def _end(self, trial: ArmTrial, event: TrialEvent, reason: str, message: str, decision: Decision) -> None:
        trial.arm.end(trial, event)
        decision.records.append(self._moved(trial, reason, message))

    def _lose(self, trial: ArmTrial, message: str, decision: Decision) -> None:
        """Let a trial wait for another worker; one that has lost too many, the last of them alone, fails."""
        if trial.num_losses + 1 < MAX_LOSSES or not self._lanes.fills_a_slot(trial):
            self._requeue(trial, message, decision)
            return
        num_lost = trial.num_losses + 1
        text = f"{num_lost} workers were lost under it without a new observation; the last: {message}"
        self._end(trial, TrialEvent.FAIL, "worker_lost", text, decision)

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
        self._judge(state, sorted(state.held), decision)
        admitted = self._fill(name, state, decision)
        if state.is_busy:
            verdict = Verdict(
                admit=tuple(self._assignment(trial, is_alone=self._lanes.fills_a_slot(trial)) for trial in admitted),
                hold=tuple(sorted(state.held)),
                plan_for=max((self._lanes.plan_for(trial) for trial in admitted), default=0),
            )
            for trial in admitted:
                trial.is_new = False
            return self._give(name, state, verdict, decision)
        if not state.members and self._nothing_will_come():
            return self._give(name, state, Verdict(finish=True), decision)
        return False

    def _give(self, name: str, state: _Slot, verdict: Verdict, decision: Decision) -> bool:
        assert state.waits_for is not None
        decision.verdicts.append((name, state.waits_for, replace(verdict, evict=state.evict)))
        state.waits_for, state.evict = None, ()
        return True

    def _nothing_will_come(self) -> bool:
        """Whether a slot without work may end: what is still running can bring no further point."""
        return not self._waiting and not any(arm.may_draw() for arm in self._arms)

    # Filling slots

    def _fill(self, name: str, state: _Slot, decision: Decision) -> list[ArmTrial]:
        """Take trials into a slot until it is full or has its share of the work."""
        share = self._fair_share()
        admitted: list[ArmTrial] = []
        while (trial := self._next_trial(state, share, decision)) is not None:
            state.members[trial.number] = trial
            trial.arm.start(trial)
            decision.records.append(self._moved(trial, "assigned", f"slot {name}"))
            admitted.append(trial)
        return admitted

    def _fair_share(self) -> int:
        """Give the members of a slot where all of them have equally many: none starves while another is filled."""
        num_in_slots = sum(len(state.members) for state in self._slots.values())
        num_to_come = len(self._waiting) + sum(arm.num_drawable() for arm in self._arms)
        return -(-(num_in_slots + num_to_come) // self._lanes.num_slots)

    def _next_trial(self, state: _Slot, share: int, decision: Decision) -> ArmTrial | None:
        if self._waiting:
            head = self._waiting[0]
            may_enter = self._is_awaited(state, head) or self._has_room(state, share, self._lanes.part_of(head))
            return self._waiting.pop(0) if may_enter else None
        for arm in self._arms_by_need(state):
            drawn = arm.draw() if self._has_room(state, share, self._lanes.part_of_new(arm.index)) else []
            if drawn:
                decision.records += [self._created(trial) for trial in drawn]
                for trial in drawn[1:]:
                    self._wait(trial)
                return drawn[0]
        return None

    def _has_room(self, state: _Slot, share: int, part: float) -> bool:
        if not state.members:
            return True
        occupied = sum(self._lanes.part_of(trial) for trial in state.members.values())
        return len(state.members) < share and occupied + part <= 1.0 + 1e-9

    @staticmethod
    def _is_awaited(state: _Slot, trial: ArmTrial) -> bool:
        """Whether the whole slot may be waiting for this trial: then it enters, or nobody would ever go on."""
        return not state.is_busy and trial.number < min(state.held, default=0)

    def _arms_by_need(self, state: _Slot) -> list[Arm]:
        """List the arms: the least served first, but those in the slot before others that are hardly behind them."""
        present = {trial.arm.index for trial in state.members.values()}
        active = Counter(trial.arm.index for slot in self._slots.values() for trial in slot.members.values())

        def need(arm: Arm) -> tuple[float, int, int]:
            head_start = HEAD_START_SECONDS if arm.index in present else 0.0
            return arm.device_seconds - head_start, active[arm.index], arm.index

        return sorted(self._arms, key=need)

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

    def _let_go(self, state: _Slot, decision: Decision) -> None:
        """Take the trials out of a slot that is about to end; it still writes their checkpoint."""
        for trial in list(state.members.values()):
            if self._stop in (StopKind.CANCEL, StopKind.LIMIT):
                self._end_in(state, trial, TrialEvent.CANCEL, *self._why_cancelled(), decision)
            else:
                trial.arm.requeue(trial)
                decision.records.append(self._moved(trial, "campaign_paused"))
                self._wait(trial)
        state.members, state.held = {}, set()

    def _why_cancelled(self) -> tuple[str, str]:
        if self.exhausted is None:
            return "campaign_cancelled", ""
        return self.exhausted.limit.value, self.exhausted.message

    def _cancel_waiting(self, decision: Decision) -> None:
        for trial in self._waiting:
            self._end(trial, TrialEvent.CANCEL, *self._why_cancelled(), decision)
        self._waiting.clear()


def _with_objectives(trial: ArmTrial, report: MemberReport) -> MemberReport:
    """Turn a report that lacks an objective into a failure of the task's code, and of this trial alone."""
    missing = trial.arm.missing(report.metrics)
    if not missing or not (report.metrics or report.ending is Ending.REACHED):
        return report
    message = f"step {report.step} was reported without {', '.join(missing)}: got {', '.join(sorted(report.metrics))}"
    return replace(report, ending=Ending.FAILED, metrics={}, message=message)
