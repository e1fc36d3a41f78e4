"""Who trains what: hands trials to slots, takes their reports, and decides what happens next.

The scheduler touches neither Ray nor disk nor clock. Each stimulus (a slot opened, reported, was lost; the campaign is
to stop) returns a `Decision`: records to be put on the spool first, and commands to be given afterwards. A slot whose
next work is not known yet gets its command with a later decision. Trial numbers do not depend on the order of work
(`naming.trial_number`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import assert_never

from spectune.service.campaign.ending.budget import Exhausted
from spectune.service.campaign.model.lifecycle import STOPPED_BY_USER, TrialEvent, TrialState
from spectune.service.campaign.model.records import Observation, TrialRecord
from spectune.service.driver.arm_trial import ArmTrial, with_objectives
from spectune.service.driver.arms import Arm, Fate
from spectune.service.driver.assignments import MakeAssignment
from spectune.service.driver.decision import Decision, SlotState
from spectune.service.driver.event_log import EventLog
from spectune.service.driver.fault_handling import FaultHandling
from spectune.service.driver.fault_policy import FaultPolicy
from spectune.service.driver.slot_capacity import SlotCapacity
from spectune.service.driver.stop_kinds import StopKind
from spectune.service.driver.trial_queue import HEAD_START_SECONDS, TrialQueue
from spectune.service.driver.trial_transitions import TrialTransitions
from spectune.service.driver.turns import Turns
from spectune.service.ledger.spool import Record
from spectune.trainers.worker.arithmetic import Execution
from spectune.trainers.worker.messages import MemberReport, SlotCommand, SlotReport, TrialEnding


class Scheduler:
    """One attempt's membership: which trials are in which slot.

    Args:
        arms: The campaign's arms, each with its study and stopping rule.
        lanes: How many trials fit into a slot.
        assignment: Makes the assignment of a trial.
        now: The clock, in milliseconds since the epoch.
        limit: Tells whether the campaign has spent what it may, or has what it wanted, from its device seconds and the
            best objective of each arm so far.
        shares_seconds: Whether arms share a budget in seconds, so that a slot rather waits than lets one get ahead.

    Attributes:
        exhausted: What ended the campaign before its work was done, if anything did.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        *,
        lanes: SlotCapacity,
        assignment: MakeAssignment,
        now: Callable[[], int],
        limit: Callable[[float, Sequence[float]], Exhausted | None] = lambda device_seconds, bests: None,
        shares_seconds: bool = False,
    ) -> None:
        self._arms = arms
        self._event_log = EventLog(now)
        self._slots: dict[str, SlotState] = {}
        self._trial_queue = TrialQueue(
            arms, lanes, self._slots, head_start_seconds=0.0 if shares_seconds else HEAD_START_SECONDS
        )
        self._turns = Turns(arms, self._slots, lanes, assignment=assignment, waits=shares_seconds)
        self._fault_policy = FaultPolicy()
        self._fault_handling = FaultHandling(lanes, self._fault_policy, self._event_log)
        self._transitions = TrialTransitions(self._trial_queue, lanes, self._fault_policy, self._event_log)
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
            decision.records += [self._event_log.created(trial) for trial in made]
        for trial in [trial for arm in self._arms for trial in arm.unfinished()]:
            if trial.state is TrialState.RUNNING:
                decision.records.append(self._transitions.requeue(trial, "the attempt before ended under it"))
            else:
                self._trial_queue.wait(trial)
        return self.check_limits(decision)

    def open_slot(self, slot: str, place: str = "", execution: Execution | None = None) -> Decision:
        """A new slot, on some machine, asks for its first work."""
        self._slots[slot] = SlotState(slot, place, execution)
        return self._serve(Decision())

    def take(self, slot: str, report: SlotReport) -> Decision:
        """A slot reported: everything is entered before anything is judged."""
        decision = Decision()
        state = self._slots[slot]
        state.waits_for = report.number
        self._turns.enter(state, report)
        decision.records += self._fault_handling.of_measurements(state, report)
        for member in report.members:
            assert member.trial in state.members, f"slot {slot} has {sorted(state.members)}: got {member.trial}"
        members = [with_objectives(state.members[each.trial], each) for each in report.members]
        decision.records += self._fault_handling.of_failures(state, members)
        members = [self._fault_handling.blamed(state, each) for each in members]
        for member in members:
            self._enter(state.members[member.trial], member, decision)
        for member in members:
            self._settle(state, member, decision)
        self._judge(state, [each.trial for each in members if each.ending is TrialEnding.REACHED], decision)
        self._stop_unwanted(state, decision)
        return self.check_limits(decision)

    def lose(self, slot: str, message: str) -> Decision:
        """A slot's worker is gone: its trials wait for another, unless they lose workers again and again."""
        decision = Decision()
        state = self._slots.pop(slot, None)
        if state is not None:  # else it died before it asked for work
            decision.records += self._fault_handling.of_loss(state, message)
            members, held = state.members.values(), state.held
            decision.records += [self._transitions.lose(each, message, is_held=each.number in held) for each in members]
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
        for trial in [each for each in self._trial_queue.waiting if each.number in self._unwanted]:
            self._trial_queue.waiting.remove(trial)
            decision.records.append(self._transitions.end(trial, TrialEvent.CANCEL, STOPPED_BY_USER))
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
        return self._fault_policy.quarantined

    def num_slots_wanted(self) -> int:
        """Count the slots that have work or could get it now; there may be fewer, for a slot takes its share."""
        if self._stop is not None:
            return 0
        return sum(bool(state.members) for state in self._slots.values()) + self._trial_queue.num_to_come()

    def is_over(self) -> bool:
        """Return whether nothing is left to do: every slot has ended and no work is open."""
        return not self._slots and self.num_slots_wanted() == 0

    # Reports

    def _enter(self, trial: ArmTrial, report: MemberReport, decision: Decision) -> None:
        """Write down what a member did."""
        if report.metrics and report.step > trial.last_step:
            decision.records.append(self._event_log.observation(trial, report))
            trial.num_losses = 0
            trial.arm.observe(trial, report.step, report.metrics)
        elif report.seconds > 0:
            decision.records.append(self._event_log.device_seconds(trial, report))
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
            state.remove_member(trial.number)
            decision.records.append(self._transitions.end(trial, TrialEvent.COMPLETE, "end_of_schedule", reason))
        elif fate is Fate.STOP:
            state.remove_member(trial.number)
            decision.records.append(self._transitions.end(trial, TrialEvent.STOP, "stopping_rule", reason))

    def _settle(self, state: SlotState, report: MemberReport, decision: Decision) -> None:
        """Move a member whose stretch did not reach its step."""
        if report.ending in (TrialEnding.REACHED, TrialEnding.INTERRUPTED):
            return
        trial = state.remove_member(report.trial)
        match report.ending:
            case TrialEnding.DIVERGED:
                record = self._transitions.end(trial, TrialEvent.DIVERGE, "diverged", report.message)
            case TrialEnding.FAILED:
                record = self._transitions.fail(trial, state.name, report.message)
            case TrialEnding.LOST:
                record = self._transitions.lose(trial, report.message)
            case _:
                assert_never(report.ending)
        decision.records.append(record)

    def _stop_unwanted(self, state: SlotState, decision: Decision) -> None:
        """End members that users want to end; to the search they are as if they had never been tried."""
        for number in sorted(self._unwanted.intersection(state.members)):
            trial = state.remove_member(number)
            decision.records.append(self._transitions.end(trial, TrialEvent.CANCEL, STOPPED_BY_USER))

    # Serving slots

    def _serve(self, decision: Decision) -> Decision:
        """Assign every waiting slot its command, as far as it is known now."""
        num_known = -1
        while num_known < len(decision.records):  # an end may let others go on that waited
            num_known = len(decision.records)
            for state in self._slots.values():
                if state.waits_for is not None:
                    self._staff(state, decision)
        for state in self._slots.values():  # whose turn it is depends on who is in which slot
            if state.waits_for is not None:
                self._serve_slot(state, decision)
        if self._stop in (StopKind.CANCEL, StopKind.LIMIT):
            decision.records += [self._cancelled(trial) for trial in self._trial_queue.waiting]
            self._trial_queue.waiting.clear()
        return decision

    def _staff(self, state: SlotState, decision: Decision) -> None:
        """Bring the members of a slot up to date: judge those that are held and take in others, or let all go."""
        if self._stop is not None:
            reason = "campaign_paused" if self._stop is StopKind.PAUSE else None
            self._let_go(state, decision, reason=reason, checkpoint=reason is not None)
        elif state.is_retired:
            self._let_go(state, decision, reason="worker_quarantined", checkpoint=True)
        else:
            self._judge(state, sorted(state.held), decision)
            self._fill(state, decision)

    def _serve_slot(self, state: SlotState, decision: Decision) -> None:
        """Give one slot its command, if there is one to give."""
        if state.is_busy or state.entering:
            if command := self._turns.command(state):
                self._give(state, command, decision)
        elif not state.members and self._trial_queue.will_nothing_come(state):
            self._give(state, SlotCommand(finish=True), decision)

    def _give(self, state: SlotState, command: SlotCommand, decision: Decision) -> None:
        assert state.waits_for is not None
        decision.commands.append((state.name, state.waits_for, replace(command, evict=state.evict)))
        state.waits_for, state.evict = None, ()

    def _fill(self, state: SlotState, decision: Decision) -> None:
        """Take trials into a slot until it is full or has its share of the work."""
        share = self._trial_queue.fair_share()
        while True:
            trial, drawn = self._trial_queue.next_for(state, share)
            decision.records += [self._event_log.created(each) for each in drawn]
            if trial is None:
                return
            state.members[trial.number] = trial
            state.entering.append(trial)
            decision.records.append(self._transitions.start(trial, state))
            if trial.arm.lets_wait:  # its checkpoint may be of the rung where it was held, and its next report beyond
                self._judge(state, [trial.number], decision)

    def _let_go(self, state: SlotState, decision: Decision, *, reason: str | None, checkpoint: bool) -> None:
        """End a slot: its trials wait for another, or are cancelled where no reason to wait is given."""
        for trial in list(state.members.values()):
            if reason is None:
                decision.records.append(self._cancelled(state.remove_member(trial.number)))
            else:  # it stays in the slot, which still writes its checkpoint
                decision.records.append(self._transitions.pause(trial, reason))
        state.members, state.held, state.entering = {}, set(), []
        self._give(state, SlotCommand(finish=True, checkpoint=checkpoint), decision)

    def _cancelled(self, trial: ArmTrial) -> Record:
        """End a trial with its campaign."""
        if self.exhausted is None:
            return self._transitions.end(trial, TrialEvent.CANCEL, "campaign_cancelled")
        return self._transitions.end(trial, TrialEvent.CANCEL, self.exhausted.limit.value, self.exhausted.message)
