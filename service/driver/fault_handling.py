"""What reports and losses teach beside numbers: how many trials fit together, and which workers to trust.

Each lesson changes `SlotCapacity` or `FaultPolicy` and gives the records that say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from spectune.service.driver.arm_trial import ArmTrial
from spectune.service.driver.decision import SlotState
from spectune.service.driver.event_log import EventLog
from spectune.service.driver.fault_policy import FaultPolicy, is_out_of_memory
from spectune.service.driver.slot_capacity import SlotCapacity
from spectune.service.ledger.spool import Record
from spectune.trainers.worker.messages import MemberReport, SlotReport, TrialEnding


class FaultHandling:
    """Learns from what slots report and from how they end.

    Args:
        lanes: How many trials fit into a slot.
        fault_policy: Whose fault failures are.
        event_log: Makes the records.
    """

    def __init__(self, lanes: SlotCapacity, fault_policy: FaultPolicy, event_log: EventLog) -> None:
        self._lanes = lanes
        self._fault_policy = fault_policy
        self._event_log = event_log

    def of_measurements(self, slot: SlotState, report: SlotReport) -> list[Record]:
        """Learn how many trials are best trained together, and whether an arm's fused steps are exact."""
        records = []
        for number, plan in report.plans.items():
            self._lanes.learn(slot.members[number].arm.index, plan.num_members)
            records.append(self._event_log.planned(slot.members[number], plan))
        for number, check in report.checks.items():
            if not check.holds:  # no further trial of the arm is fused
                self._lanes.distrust(slot.members[number].arm.index)
            records.append(self._event_log.fusion_checked(slot.members[number], check))
        return records

    def of_failures(self, slot: SlotState, reports: Sequence[MemberReport]) -> list[Record]:
        """Learn from failures of code what fits into memory, and whether the worker is to be retired."""
        failed = {each.trial: each.message for each in reports if each.ending in (TrialEnding.FAILED, TrialEnding.LOST)}
        starved = [slot.members[number] for number, message in failed.items() if is_out_of_memory(message)]
        records = self._of_death(slot, starved, "out of memory") if starved else []
        suspect = {number: message for number, message in failed.items() if not is_out_of_memory(message)}
        has_reached = any(each.ending in (TrialEnding.REACHED, TrialEnding.DIVERGED) for each in reports)
        tracebacks = list(suspect.values())
        if self._fault_policy.enter_report(slot.name, slot.place, failures=tracebacks, has_reached=has_reached):
            slot.is_retired = True
            last = slot.members[next(reversed(suspect))]
            message = f"slot {slot.name} gets another worker, for of this one came only failures; the last: "
            records.append(self._event_log.quarantined(last, message + tracebacks[-1]))
            records += self._of_bad_worker(slot, last, tracebacks[-1])
        return records

    def of_loss(self, slot: SlotState, message: str) -> list[Record]:
        """Learn from a worker that died."""
        lost = list(slot.members.values())
        records = self._of_death(slot, lost, message)
        return records + (self._of_bad_worker(slot, lost[-1], message) if lost else [])

    def blamed(self, slot: SlotState, report: MemberReport) -> MemberReport:
        """Turn what memory that several arms share did not bear into a loss: it is no fault of the trial's code."""
        is_starved = report.ending is TrialEnding.FAILED and is_out_of_memory(report.message)
        return replace(report, ending=TrialEnding.LOST) if is_starved and len(slot.arms) > 1 else report

    def _of_death(self, slot: SlotState, trials: Sequence[ArmTrial], message: str) -> list[Record]:
        """Learn how much memory bears: of several arms first that they are too many, then of one its K."""
        is_memory = is_out_of_memory(message)
        if len(slot.arms) > 1:
            self._lanes.part_arms(is_out_of_memory=is_memory)
            return []
        return self._shrunk(self._lanes.lose(trials, is_out_of_memory=is_memory), trials, message)

    def _of_bad_worker(self, slot: SlotState, trial: ArmTrial, last: str) -> list[Record]:
        if not self._fault_policy.lose_worker(slot.place):
            return []
        message = f"machine {slot.place} gets no further worker, for they ended one after the other; the last: {last}"
        return [self._event_log.quarantined(trial, message)]

    def _shrunk(self, halved: Mapping[int, int], trials: Sequence[ArmTrial], message: str) -> list[Record]:
        first = {trial.arm.index: trial for trial in reversed(trials)}
        return [self._event_log.shrunk(first[arm], number, message) for arm, number in halved.items()]
