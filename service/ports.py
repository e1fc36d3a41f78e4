"""The seams to the world: what the service's parts need of each other, as small protocols.

Implementations live behind their own doors (`ledger/`, `launchers/`, `tracking/`) and meet only in `app.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from spectune.service.campaign.model.records import (
    CampaignRecord,
    Event,
    Observation,
    Refusal,
    TrialRecord,
    TrialUpdate,
)


class AttemptLedger(Protocol):
    """What a driver's writer needs of the ledger; `spectune.service.ledger.Ledger` says what each method does."""

    def append(
        self,
        campaign_id: str,
        attempt: int,
        batch: Sequence[tuple[int, dict[str, Any]]],
        *,
        spool_of: int | None = None,
    ) -> None:
        """Enter spooled records, all or none. Raises FencedError."""

    def stops_asked(self, campaign_id: str) -> list[int]:
        """Return which trials a user wants to end."""

    def beat(self, campaign_id: str, attempt: int) -> None:
        """Say that the driver is alive."""


class TrackedLedger(Protocol):
    """What a projector needs of the ledger."""

    def campaign(self, campaign_id: str) -> CampaignRecord:
        """Read one campaign. Raises CampaignNotFoundError."""

    def trials(self, campaign_id: str, *, numbers: Collection[int] | None = None) -> list[TrialRecord]:
        """Read a campaign's trials by number; at least these."""

    def observations(self, campaign_id: str, *, of: Collection[int] | None = None) -> list[Observation]:
        """Read observations by trial and step; at least those of these trials."""

    def changes(self, campaign_id: str, *, after: int, limit: int) -> list[Event | Observation]:
        """Read what happened after a sequence number, in order."""

    def cursor(self, tracker: str, campaign_id: str) -> int:
        """Return how far a tracker has followed a campaign."""

    def set_cursor(self, tracker: str, campaign_id: str, sequence: int) -> None:
        """Remember how far a tracker has followed a campaign."""

    def add_dead_letters(self, tracker: str, campaign_id: str, refusals: Sequence[Refusal]) -> None:
        """Keep what a tracker will never take."""


class Tracker(Protocol):
    """A place where people look at runs."""

    name: str

    def tell(
        self, campaign: CampaignRecord, trials: Sequence[TrialUpdate], summary: Mapping[str, float] | None
    ) -> list[Refusal]:
        """Record what has happened, and return what the tracker will never take; repeating it is harmless."""

    def page(self, campaign: CampaignRecord) -> str:
        """Return the address where a campaign's trials can be looked at; it must have been told of."""


class Attachments(Protocol):
    """Puts documents beside a campaign in a tracker."""

    def attach(self, campaign_id: str) -> None:
        """Attach what a campaign that has ended leaves, unless it is there; may be repeated without harm."""


@dataclass(frozen=True)
class CampaignPages:
    """Where a campaign can be looked at; None for what the tracker does not hold yet.

    Attributes:
        run: The campaign itself, with its artifacts.
        trials: All its trials and their curves, the best first.
        best: Its best completed trials, compared; None with fewer than two.
    """

    run: str | None = None
    trials: str | None = None
    best: str | None = None


class Pages(Protocol):
    """Finds where people look at campaigns; may be slow, and raises TrackingError where the tracker is away."""

    def of_campaign(self, campaign: CampaignRecord) -> CampaignPages:
        """Return a campaign's pages."""

    def of_trial(self, campaign: CampaignRecord, number: int) -> str | None:
        """Return a trial's page; None where the tracker does not hold it yet."""


class DriverProcess(Protocol):
    """A launched attempt."""

    def poll(self) -> int | None:
        """Return the exit code, or None while the driver lives."""

    def request_stop(self) -> None:
        """Ask the driver to stop the campaign cleanly."""

    def request_pause(self) -> None:
        """Ask the driver to pause the campaign cleanly."""

    def kill(self) -> None:
        """End every process of the attempt at once."""


class Launcher(Protocol):
    """Starts drivers."""

    def launch(self, campaign_id: str, attempt: int) -> DriverProcess:
        """Start the driver of an attempt."""


class LastingDriver(DriverProcess, Protocol):
    """A launched attempt that outlives whoever launched it. Every method may raise LauncherError."""


class LastingLauncher(Protocol):
    """Starts drivers that outlive the service, and finds them again. Every method may raise LauncherError."""

    sees_processes: bool
    """Whether every process of an attempt can be seen from here, so that what is not found is gone."""

    def problem(self) -> str | None:
        """Return why nothing can be launched just now; None where it can. Raises nothing."""

    def launch(self, campaign_id: str, attempt: int) -> LastingDriver:
        """Start the driver of an attempt; OSError where it cannot be."""

    def find(self, campaign_id: str, attempt: int) -> LastingDriver | None:
        """Find the driver of an attempt that was launched before; None where none lives."""

    def exit_code(self, campaign_id: str, attempt: int) -> int | None:
        """Tell with what code the driver of an attempt ended; None where nobody knows."""

    def end_remains(self, campaign_id: str, attempt: int) -> list[str]:
        """End what is left of an attempt whose driver is gone, and name what could not be ended."""
