"""Who trains what: hands trials to slots, takes their reports, and decides what happens next.

The dispatcher touches neither Ray nor disk nor clock. Each stimulus (a slot opened, reported, was lost; the campaign is
to stop) returns a `Decision`: records to be put on the spool first, and verdicts to be given afterwards. A slot whose
next work is not known yet gets its verdict with a later decision. Trial numbers do not depend on the order of work
(`naming.trial_number`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from service.campaign.budget import Exhausted
from service.campaign.lifecycle import STOPPED_BY_USER, TrialEvent, TrialState
from service.campaign.records import Observation, TrialRecord
from service.driver.arm_trial import ArmTrial, with_objectives
from service.driver.arms import Arm, Fate
from service.driver.assignments import MakeAssignment
from service.driver.chronicle import Chronicle
from service.driver.decision import Decision, SlotState
from service.driver.failures import Failures
from service.driver.lanes import Lanes
from service.driver.lessons import Lessons
from service.driver.seating import Seating
from service.driver.stops import StopKind
from trainers.messages import Ending, MemberReport, SlotReport, Verdict

MAX_LOSSES = 3  # workers lost under one trial, alone in the last of them, without a new observation


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
        self._write = Chronicle(now)
        self._slots: dict[str, SlotState] = {}
        self._seating = Seating(arms, lanes, self._slots)
        self._failures = Failures()
        self._lessons = Lessons(lanes, self._failures, self._write)
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
            decision.records += [self._write.created(trial) for trial in made]
        for trial in [trial for arm in self._arms for trial in arm.unfinished()]:
            if trial.state is TrialState.RUNNING:
                self._requeue(trial, "the attempt before ended under it", decision)
            else:
                self._seating.wait(trial)
        return self.check_limits(decision)

    def open_slot(self, slot: str, place: str = "") -> Decision:
        """A new slot, on some machine, asks for its first work."""
        self._slots[slot] = SlotState(slot, place)
        return self._serve(Decision())

    def take(self, slot: str, report: SlotReport) -> Decision:
        """A slot reported: everything is entered before anything is judged."""
        decision = Decision()
        state = self._slots[slot]
        state.waits_for = report.number
        decision.records += self._lessons.of_measurements(state, report)
        for member in report.members:
            assert member.trial in state.members, f"slot {slot} has {sorted(state.members)}: got {member.trial}"
        members = [with_objectives(state.members[each.trial], each) for each in report.members]
        decision.records += self._lessons.of_failures(state, members)
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
        state = self._slots.pop(slot, None)
        if state is not None:  # else it died before it asked for work
            decision.records += self._lessons.of_loss(state, message)
            for trial in state.members.values():
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
        for trial in [each for each in self._seating.waiting if each.number in self._unwanted]:
            self._seating.waiting.remove(trial)
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

    @property
    def quarantined(self) -> frozenset[str]:
        """The machines on which no slot is to be opened."""
        return self._failures.quarantined

    def num_slots_wanted(self) -> int:
        """Count the slots that have work or could get it now; there may be fewer, for a slot takes its share."""
        if self._stop is not None:
            return 0
        return sum(bool(state.members) for state in self._slots.values()) + self._seating.num_to_come()

    def is_over(self) -> bool:
        """Tell whether nothing is left to do: every slot has ended and no work is open."""
        return not self._slots and self.num_slots_wanted() == 0

    # Reports

    def _enter(self, trial: ArmTrial, report: MemberReport, decision: Decision) -> None:
        """Write down what a member did."""
        if report.metrics and report.step > trial.last_step:
            decision.records.append(self._write.observation(trial, report))
            trial.num_losses = 0
            trial.arm.observe(trial, report.step, report.metrics)
        elif report.seconds > 0:
            decision.records.append(self._write.device_seconds(trial, report))
        trial.arm.charge(trial, report.seconds)

    def _judge(self, state: SlotState, numbers: Sequence[int], decision: Decision) -> None:
        """Decide which members go on, which end, and which are held at a rung until others have come."""
        trials = [state.members[number] for number in numbers]
        for arm in self._arms:
            for trial, (fate, reason) in arm.judge([each for each in trials if each.arm is arm]).items():
                self._follow(state, trial, fate, reason, decision)

    def _follow(self, state: SlotState, trial: ArmTrial, fate: Fate, reason: str, decision: Decision) -> None:
        state.held.discard(trial.number)
        if fate is Fate.WAIT:
            state.held.add(trial.number)
        elif fate is Fate.COMPLETE:
            self._end(state.take_out(trial.number), TrialEvent.COMPLETE, "end_of_schedule", reason, decision)
        elif fate is Fate.STOP:
            self._end(state.take_out(trial.number), TrialEvent.STOP, "stopping_rule", reason, decision)

    def _settle(self, state: SlotState, report: MemberReport, decision: Decision) -> None:
        """Move a member whose stretch did not reach its step."""
        match report.ending:
            case Ending.DIVERGED:
                trial = state.take_out(report.trial)
                self._end(trial, TrialEvent.DIVERGE, "diverged", report.message, decision)
            case Ending.FAILED:
                self._fail(state.take_out(report.trial), state.name, report.message, decision)
            case Ending.LOST:
                self._lose(state.take_out(report.trial), report.message, decision)
            case Ending.REACHED | Ending.INTERRUPTED:
                pass

    def _stop_unwanted(self, state: SlotState, decision: Decision) -> None:
        """End members that users want to end; to the search they are as if they had never been tried."""
        for number in sorted(self._unwanted.intersection(state.members)):
            self._end(state.take_out(number), TrialEvent.CANCEL, STOPPED_BY_USER, "", decision)

    # Moving trials

    def _end(self, trial: ArmTrial, event: TrialEvent, reason: str, message: str, decision: Decision) -> None:
        trial.arm.end(trial, event)
        decision.records.append(self._write.moved(trial, reason, message))

    def _fail(self, trial: ArmTrial, slot: str, message: str, decision: Decision) -> None:
        """Let a trial whose code failed try once more elsewhere, unless it failed in the same way before."""
        if self._failures.is_final(trial.number, message):
            self._end(trial, TrialEvent.FAIL, "user_code", message, decision)
        else:
            trial.shuns = slot
            self._requeue(trial, message, decision, reason="user_code")

    def _lose(self, trial: ArmTrial, message: str, decision: Decision) -> None:
        """Let a trial wait for another worker; one that has lost too many, the last of them alone, fails."""
        if trial.num_losses + 1 < MAX_LOSSES or not self._lanes.fills_a_slot(trial):
            self._requeue(trial, message, decision)
            return
        num_lost = trial.num_losses + 1
        text = f"{num_lost} workers were lost under it without a new observation; the last: {message}"
        self._end(trial, TrialEvent.FAIL, "worker_lost", text, decision)

    def _requeue(self, trial: ArmTrial, message: str, decision: Decision, *, reason: str = "worker_lost") -> None:
        trial.arm.requeue(trial)
        trial.num_losses += 1
        decision.records.append(self._write.lost(trial, reason, message))
        self._seating.wait(trial)

    # Serving slots

    def _serve(self, decision: Decision) -> Decision:
        """Give every slot that waits its verdict, as far as it is known now."""
        while any(self._serve_slot(state, decision) for state in self._slots.values()):
            pass
        if self._stop in (StopKind.CANCEL, StopKind.LIMIT):
            for trial in self._seating.waiting:
                self._end(trial, TrialEvent.CANCEL, *self._why_cancelled(), decision)
            self._seating.waiting.clear()
        return decision

    def _serve_slot(self, state: SlotState, decision: Decision) -> bool:
        """Give one slot its verdict; tell whether there was one to give."""
        if state.waits_for is None:
            return False
        if self._stop is not None:
            is_pause = self._stop is StopKind.PAUSE
            return self._let_go(state, decision, reason="campaign_paused" if is_pause else None, checkpoint=is_pause)
        if state.is_retired:
            return self._let_go(state, decision, reason="worker_quarantined", checkpoint=True)
        self._judge(state, sorted(state.held), decision)
        admitted = self._fill(state, decision)
        if state.is_busy or admitted:
            return self._give(state, self._verdict(state, admitted), decision)
        if not state.members and self._seating.will_nothing_come(state):
            return self._give(state, Verdict(finish=True), decision)
        return False

    def _verdict(self, state: SlotState, admitted: Sequence[ArmTrial]) -> Verdict:
        verdict = Verdict(
            admit=tuple(self._assignment(trial, is_alone=self._lanes.fills_a_slot(trial)) for trial in admitted),
            hold=tuple(sorted(state.held)),
            plan_for=max((self._lanes.plan_for(trial) for trial in admitted), default=0),
        )
        for trial in admitted:
            trial.is_new = False
        return verdict

    def _give(self, state: SlotState, verdict: Verdict, decision: Decision) -> bool:
        assert state.waits_for is not None
        decision.verdicts.append((state.name, state.waits_for, replace(verdict, evict=state.evict)))
        state.waits_for, state.evict = None, ()
        return True

    def _fill(self, state: SlotState, decision: Decision) -> list[ArmTrial]:
        """Take trials into a slot until it is full or has its share of the work."""
        share = self._seating.fair_share()
        admitted: list[ArmTrial] = []
        while True:
            trial, drawn = self._seating.next_for(state, share)
            decision.records += [self._write.created(each) for each in drawn]
            if trial is None:
                return admitted
            state.members[trial.number] = trial
            trial.arm.start(trial)
            decision.records.append(self._write.moved(trial, "assigned", f"slot {state.name}"))
            if trial.arm.lets_wait:  # its checkpoint may be of the rung where it was held, and its next report beyond
                self._judge(state, [trial.number], decision)
            if trial.number in state.members:
                admitted.append(trial)

    def _let_go(self, state: SlotState, decision: Decision, *, reason: str | None, checkpoint: bool) -> bool:
        """End a slot: its trials wait for another, or are cancelled where no reason to wait is given."""
        for trial in list(state.members.values()):
            if reason is None:
                self._end(state.take_out(trial.number), TrialEvent.CANCEL, *self._why_cancelled(), decision)
            else:  # it stays in the slot, which still writes its checkpoint
                trial.arm.requeue(trial)
                decision.records.append(self._write.moved(trial, reason))
                self._seating.wait(trial)
        state.members, state.held = {}, set()
        return self._give(state, Verdict(finish=True, checkpoint=checkpoint), decision)

    def _why_cancelled(self) -> tuple[str, str]:
        if self.exhausted is None:
            return "campaign_cancelled", ""
        return self.exhausted.limit.value, self.exhausted.message
