"""One trial of an arm as the driver knows it, and its forms for the ledger and for the study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.outcomes import SeedHistory
from spectune.service.campaign.model.records import Phase, TrialRecord
from spectune.trainers.worker.messages import MemberReport, TrialEnding

if TYPE_CHECKING:
    from spectune.service.driver.arms import Arm


@dataclass(eq=False)
class ArmTrial:
    """One trial of an arm, as it is known to the driver; only its arm changes it."""

    arm: Arm
    number: int
    point: int
    seed_index: int
    config: Mapping[str, Any]
    ask: Mapping[str, Any]
    state: TrialState = TrialState.PENDING
    last_step: int = 0
    num_losses: int = 0
    device_seconds: float = 0.0
    values: dict[int, float] = field(default_factory=dict)  # objective by step
    is_new: bool = True  # no slot had it yet
    further: tuple[float, ...] = ()  # the further objectives at the last step
    excluded_slot: str | None = None  # the slot in which its code failed

    @property
    def is_searched(self) -> bool:
        """Whether the search asked for it and learns from it; finals and audits are beyond it."""
        return Phase(self.ask.get("phase", Phase.SEARCH)) is Phase.SEARCH


def restored(arm: Arm, trial: TrialRecord, values: dict[int, float], further: tuple[float, ...]) -> ArmTrial:
    """Make a trial as the ledger knows it; values by step, further objectives at its last."""
    return ArmTrial(
        arm,
        trial.number,
        trial.point,
        trial.seed_index,
        config=trial.config,
        ask=trial.ask,
        state=trial.state,
        last_step=trial.last_step,
        num_losses=trial.num_losses,
        device_seconds=trial.device_seconds,
        values=values,
        is_new=False,
        further=further,
    )


def record_of(trial: ArmTrial) -> TrialRecord:
    """Write a trial as the ledger would; its story is left out."""
    return TrialRecord(
        number=trial.number,
        arm=trial.arm.index,
        point=trial.point,
        seed_index=trial.seed_index,
        config=trial.config,
        ask=trial.ask,
        state=trial.state,
        reason="",
        message="",
        since=0,
        created_at=0,
        attempt=0,
        num_losses=trial.num_losses,
        last_step=trial.last_step,
        objective=trial.values.get(trial.last_step),
        device_seconds=trial.device_seconds,
    )


def history_of(trial: ArmTrial) -> SeedHistory:
    """Write a trial as its study wants it."""
    is_over = trial.state.is_terminal
    return SeedHistory(
        reports=trial.values,
        outcome=trial.state if is_over else None,
        value=trial.values.get(trial.last_step) if is_over else None,
        further=trial.further if is_over else (),
    )


def with_objectives(trial: ArmTrial, report: MemberReport) -> MemberReport:
    """Turn a report that lacks an objective into a failure of the task's code, and of this trial alone."""
    missing = trial.arm.missing(report.metrics)
    if not missing or not (report.metrics or report.ending is TrialEnding.REACHED):
        return report
    message = f"step {report.step} was reported without {', '.join(missing)}: got {', '.join(sorted(report.metrics))}"
    return replace(report, ending=TrialEnding.FAILED, metrics={}, message=message)
