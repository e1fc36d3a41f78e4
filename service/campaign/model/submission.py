"""What a service keeps of a campaign beside its history: whose it is, how urgent, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass

from spectune.service.campaign.model.lifecycle import CampaignState
from spectune.service.campaign.model.records import CampaignRecord

LIVE = tuple(each for each in CampaignState if not each.is_terminal and each is not CampaignState.PAUSED)


@dataclass(frozen=True)
class Submission:
    """A campaign that was submitted to the service.

    Attributes:
        owner: Whose it is.
        priority: The greatest is launched first.
        version: Counts the changes that users made.
        num_failures: Attempts lost since a user last set it going.
        not_before: No attempt is launched before, in milliseconds since the epoch by the database's clock.
        queue_position: Its place among those that wait, from 1; None where it waits for no other.
        waiting_for: What it waits for, as a sentence; empty where it does not wait.
    """

    campaign: CampaignRecord
    owner: str
    priority: int
    version: int
    num_failures: int
    not_before: int
    queue_position: int | None
    waiting_for: str

    @property
    def campaign_id(self) -> str:
        """The campaign's id."""
        return self.campaign.campaign_id

    @property
    def num_cpus(self) -> int:
        """The CPUs that it holds while it runs."""
        resources = self.campaign.specification["resources"]
        return int(resources["workers"]) * int(resources["cpus"])

    @property
    def num_gpus(self) -> float:
        """The GPUs, and parts of them, that it holds while it runs."""
        resources = self.campaign.specification["resources"]
        return int(resources["workers"]) * float(resources.get("gpus", 0.0))


@dataclass(frozen=True)
class AttemptRecord:
    """One launch of a campaign's driver; times in milliseconds since the epoch.

    Attributes:
        heartbeat_at: When its driver was last known to be alive, by the database's clock; None before it claimed.
        exit_code: How its process ended; None while it is not known to have ended.
    """

    number: int
    started_at: int
    claimed_at: int | None
    heartbeat_at: int | None
    ended_at: int | None
    exit_code: int | None
