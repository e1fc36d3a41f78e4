"""What is written down of a trial, in the ledger's words, at the time that the clock shows."""

from __future__ import annotations

from collections.abc import Callable

from spectune.service.driver.arm_trial import ArmTrial
from spectune.service.driver.decision import SlotState
from spectune.service.ledger import entries
from spectune.service.ledger.spool import Record
from spectune.trainers.engines.fused_step_check import FusionCheck
from spectune.trainers.engines.plan import Plan
from spectune.trainers.worker.messages import MemberReport


class EventLog:
    """Makes records.

    Args:
        now: The clock, in milliseconds since the epoch.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now

    def created(self, trial: ArmTrial) -> Record:
        """Say that a trial exists."""
        return entries.trial_created(
            trial=trial.number,
            arm=trial.arm.index,
            point=trial.point,
            seed_index=trial.seed_index,
            config=trial.config,
            ask=trial.ask,
            at=self._now(),
        )

    def moved(self, trial: ArmTrial, reason: str, message: str = "") -> Record:
        """Say in which state a trial is now, and why."""
        return entries.trial_moved(
            trial=trial.number, state=trial.state, reason=reason, message=message, at=self._now()
        )

    def started(self, trial: ArmTrial, slot: SlotState, *, is_alone: bool) -> Record:
        """Record that a trial trains in a slot, on what, and whether it has the slot to itself."""
        execution = {**slot.execution.document(), "alone": is_alone} if slot.execution is not None else None
        text = f"slot {slot.name}"
        return entries.trial_moved(
            trial=trial.number,
            state=trial.state,
            reason="assigned",
            message=text,
            execution=execution,
            at=self._now(),
        )

    def lost(self, trial: ArmTrial, reason: str, message: str) -> Record:
        """Say that a trial waits for another worker, and why."""
        return entries.trial_lost(trial=trial.number, reason=reason, message=message, at=self._now())

    def observation(self, trial: ArmTrial, report: MemberReport) -> Record:
        """Return what a trial reported."""
        return entries.observation(
            trial=trial.number,
            step=report.step,
            metrics=report.metrics,
            objective=trial.arm.objective(report.metrics),
            device_seconds=report.seconds,
            produced_at=report.produced_at,
        )

    def device_seconds(self, trial: ArmTrial, report: MemberReport) -> Record:
        """Return what a trial used without an observation."""
        return entries.device_seconds(trial=trial.number, seconds=report.seconds, at=report.produced_at)

    def planned(self, trial: ArmTrial, plan: Plan) -> Record:
        """Return how many of a trial's arm train together."""
        return entries.planned(trial=trial.number, arm=trial.arm.index, plan=plan.document(), at=self._now())

    def shrunk(self, trial: ArmTrial, num_members: int, message: str) -> Record:
        """Say that fewer of a trial's arm train together from here on."""
        return entries.shrunk(
            trial=trial.number, arm=trial.arm.index, num_members=num_members, message=message, at=self._now()
        )

    def quarantined(self, trial: ArmTrial, message: str) -> Record:
        """Say that a worker or a machine is not trusted any more."""
        return entries.quarantined(trial=trial.number, message=message, at=self._now())

    def fusion_checked(self, trial: ArmTrial, check: FusionCheck) -> Record:
        """Return how exact a fused step of a trial was."""
        return entries.fusion_checked(
            trial=trial.number,
            arm=trial.arm.index,
            step=check.step,
            deviation=check.deviation,
            tolerance=check.tolerance,
            at=self._now(),
        )
