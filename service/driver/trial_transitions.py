"""Transitions of trials from state to state: into a slot, out of one, to their end.

Each move changes the trial, its arm and who waits for a slot, and gives the record that says so.
"""

from __future__ import annotations

from spectune.service.campaign.model.lifecycle import TrialEvent
from spectune.service.driver.arm_trial import ArmTrial
from spectune.service.driver.decision import SlotState
from spectune.service.driver.event_log import EventLog
from spectune.service.driver.fault_policy import FaultPolicy
from spectune.service.driver.slot_capacity import SlotCapacity
from spectune.service.driver.trial_queue import TrialQueue
from spectune.service.ledger.spool import Record

MAX_LOSSES = 3  # workers lost under one trial, alone in the last of them, without a new observation


class TrialTransitions:
    """Moves the trials of one attempt from state to state.

    Args:
        trial_queue: Who waits for a slot.
        lanes: How many trials fit into a slot.
        fault_policy: Whose fault failures are.
        event_log: Makes the records.
    """

    def __init__(
        self, trial_queue: TrialQueue, lanes: SlotCapacity, fault_policy: FaultPolicy, event_log: EventLog
    ) -> None:
        self._trial_queue = trial_queue
        self._lanes = lanes
        self._fault_policy = fault_policy
        self._event_log = event_log

    def start(self, trial: ArmTrial, slot: SlotState) -> Record:
        """Let a trial train in a slot."""
        trial.arm.start(trial)
        return self._event_log.started(trial, slot, is_alone=self._lanes.fills_its_lanes(trial))

    def end(self, trial: ArmTrial, event: TrialEvent, reason: str, message: str = "") -> Record:
        """Let a trial end."""
        trial.arm.end(trial, event)
        return self._event_log.moved(trial, reason, message)

    def pause(self, trial: ArmTrial, reason: str) -> Record:
        """Let a trial wait for a slot again, through no fault of its own: nothing is counted against it."""
        trial.arm.requeue(trial)
        self._trial_queue.wait(trial)
        return self._event_log.moved(trial, reason)

    def fail(self, trial: ArmTrial, slot: str, message: str) -> Record:
        """Let a trial whose code failed try once more elsewhere, unless it failed in the same way before."""
        if self._fault_policy.is_final(trial.number, message):
            return self.end(trial, TrialEvent.FAIL, "user_code", message)
        trial.excluded_slot = slot
        return self.requeue(trial, message, reason="user_code")

    def lose(self, trial: ArmTrial, message: str, *, is_held: bool = False) -> Record:
        """Let a trial wait for another worker; one that has lost too many, the last of them alone, fails.

        One that was held at a rung did not train there, and the loss is not counted against it.
        """
        if is_held:
            return self.pause(trial, "worker_lost")
        num_lost = trial.num_losses + 1
        if num_lost < MAX_LOSSES or not self._lanes.fills_a_slot(trial):
            return self.requeue(trial, message)
        text = f"{num_lost} workers were lost under it without a new observation; the last: {message}"
        return self.end(trial, TrialEvent.FAIL, "worker_lost", text)

    def requeue(self, trial: ArmTrial, message: str, *, reason: str = "worker_lost") -> Record:
        """Let a trial wait for another worker, and count the one that it lost."""
        trial.arm.requeue(trial)
        trial.num_losses += 1
        self._trial_queue.wait(trial)
        return self._event_log.lost(trial, reason, message)
