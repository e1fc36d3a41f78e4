"""What is known about a campaign, as values: what the ledger returns and everybody else reads.

Times are milliseconds since the epoch; `sequence` is a campaign's own count of everything that happened to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from spectune.service.campaign.model.lifecycle import CampaignState, TrialState


class Phase(StrEnum):
    """What a trial is for."""

    SEARCH = "search"
    FINAL = "final"  # one of its arm's best points once more, with a seed that the search has not seen
    AUDIT = "audit"  # a trial that was stopped, once more and to the end


@dataclass(frozen=True)
class CampaignRecord:
    """A campaign and where it stands.

    Attributes:
        specification: The canonical document of `Specification.document()`.
        attempt: The attempt that may write; 0 before the first.
        sequence: The number of the last thing that happened.
    """

    campaign_id: str
    name: str
    state: CampaignState
    reason: str
    message: str
    since: int
    created_at: int
    specification: Mapping[str, Any]
    attempt: int
    sequence: int

    @property
    def objectives(self) -> Sequence[Mapping[str, Any]]:
        """The objectives of its specification, one or two."""
        given = self.specification["objective"]
        return given if isinstance(given, list) else [given]

    @property
    def objective(self) -> Mapping[str, Any]:
        """The objective of its specification; the first where there are two."""
        return self.objectives[0]


@dataclass(frozen=True)
class TrialRecord:
    """One trial: a point × a seed of an arm.

    Attributes:
        ask: How the search came to the point, as `ArmStudy` needs it to be rebuilt.
        attempt: The attempt that created it.
        num_losses: Workers lost under it since its last new observation.
        last_step: Step of its last observation, 0 before the first.
        objective: The objective at `last_step`; may be NaN or infinite; None before the first observation.
        executions: On what it was computed, each once, in order: `trainers.worker.arithmetic.Execution` as JSON values,
            and "alone", whether it had a slot to itself.
    """

    number: int
    arm: int
    point: int
    seed_index: int
    config: Mapping[str, Any]
    ask: Mapping[str, Any]
    state: TrialState
    reason: str
    message: str
    since: int
    created_at: int
    attempt: int
    num_losses: int
    last_step: int
    objective: float | None
    device_seconds: float
    executions: Sequence[Mapping[str, Any]] = ()

    @property
    def phase(self) -> Phase:
        """What the trial is for."""
        return Phase(self.ask.get("phase", Phase.SEARCH))


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """What standings need to know of a trial: a tenth of its record."""

    number: int
    arm: int
    point: int
    phase: Phase
    config: Mapping[str, Any]
    state: TrialState
    objective: float | None


@dataclass(frozen=True)
class Observation:
    """What one trial reported at one step; metrics may be NaN or infinite."""

    sequence: int
    trial: int
    step: int
    attempt: int
    produced_at: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Event:
    """Something that happened to a campaign or, where `trial` is set, to one trial."""

    sequence: int
    at: int
    kind: str
    trial: int | None
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Refusal:
    """Something that a tracker will never take.

    Attributes:
        trial: Of which trial; None of the campaign itself.
        content: What it was.
        error: What the tracker said.
    """

    trial: int | None
    content: str
    error: str


@dataclass(frozen=True)
class TrialUpdate:
    """What has happened to a trial.

    Attributes:
        record: As it is now.
        observations: Those that are new, by step.
        has_moved: Whether its state has changed.
        history: All its observations, where it has ended; else empty.
    """

    record: TrialRecord
    observations: Sequence[Observation]
    has_moved: bool
    history: Sequence[Observation] = ()
