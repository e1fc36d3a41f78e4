"""What a service keeps of a campaign beside its history: whose it is, how urgent, and what it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.campaign.lifecycle import CampaignState, TrialState
from service.campaign.records import CampaignRecord

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
class BestTrial:
    """A completed trial of the search."""

    number: int
    arm: int
    value: float


@dataclass(frozen=True)
class Summary:
    """A campaign's trials in a few numbers.

    Attributes:
        num_trials: By state; states that no trial is in are left out.
        num_steps: What the trials of each state have trained.
        device_seconds: Of all of them.
        best: The completed trial of the search with the best value; None where there is none, or for two objectives.
    """

    num_trials: Mapping[TrialState, int]
    num_steps: Mapping[TrialState, int]
    device_seconds: float
    best: BestTrial | None

    def seconds_left(self, num_planned: int, *, num_workers: int) -> float | None:
        """Guess how long the rest takes: each trial to come as many steps as those that ended, at the speed so far."""
        num_ended = sum(count for state, count in self.num_trials.items() if state.is_terminal)
        steps_ended = sum(count for state, count in self.num_steps.items() if state.is_terminal)
        num_steps = sum(self.num_steps.values())
        if not num_ended or not steps_ended or not self.device_seconds:
            return None
        left = max(0.0, num_planned * steps_ended / num_ended - num_steps)
        return left * self.device_seconds / num_steps / num_workers


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
