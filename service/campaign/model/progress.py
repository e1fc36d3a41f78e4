"""How far a campaign is: its trials by state out of those that are planned, and the time that is left.

Planned are all trials that the campaign may come to have: the search, the finals and the audit, within the trials of
its budget. Once every trial of a campaign has ended it has come to be as large as it will: a grid may be smaller than
its points, and fewer trials may have been stopped than were to be audited.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectune.service.campaign.model.lifecycle import STOPPED_BY_USER, CampaignState, TrialState
from spectune.service.campaign.model.records import CampaignRecord, TrialRecord

ALL_ENDED = "all_trials_ended"  # the reason of a campaign that has succeeded with nothing left to do


@dataclass(frozen=True)
class Tally:
    """The trials of one arm in one state.

    Attributes:
        num_trials: How many they are.
        num_steps: What they have trained.
        device_seconds: What they have used.
        is_unwanted: Whether a user ended them.
    """

    arm: int
    state: TrialState
    num_trials: int
    num_steps: int
    device_seconds: float
    is_unwanted: bool = False


@dataclass(frozen=True)
class PlannedTrials:
    """How many trials an arm may come to have.

    Attributes:
        search: Of its search.
        beyond: Of its finals and its audit, at most.
    """

    search: int
    beyond: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.search + self.beyond


@dataclass(frozen=True)
class CampaignProgress:
    """How far a campaign is.

    Attributes:
        num_trials: By state, in the order of a trial's life; states that no trial is in are left out.
        num_planned: How many trials there will be at most.
        seconds_left: A guess at how long the rest takes; None while nothing runs or nothing is known.
    """

    num_trials: Mapping[TrialState, int]
    num_planned: int
    seconds_left: float | None

    @property
    def num_ended(self) -> int:
        """How many trials have ended."""
        return sum(count for state, count in self.num_trials.items() if state.is_terminal)

    @property
    def text(self) -> str:
        """The trials by state out of those that are planned, as "32 completed, 44 stopped of 76"."""
        return f"{states_text(self.num_trials)} of {self.num_planned}"


def tally(trials: Iterable[TrialRecord]) -> list[Tally]:
    """Count trials by arm and state."""
    found: defaultdict[tuple[int, TrialState, bool], list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        found[trial.arm, trial.state, trial.reason == STOPPED_BY_USER].append(trial)
    return [
        Tally(
            arm=arm,
            state=state,
            num_trials=len(each),
            num_steps=sum(trial.last_step for trial in each),
            device_seconds=sum(trial.device_seconds for trial in each),
            is_unwanted=is_unwanted,
        )
        for (arm, state, is_unwanted), each in found.items()
    ]


def planned_trials(specification: Mapping[str, Any]) -> PlannedTrials:
    """Count the trials that each arm may come to have.

    Args:
        specification: The canonical document.
    """
    search, finals = specification["search"], specification.get("finals")
    beyond = finals["keep"] * finals["seeds"] if finals else 0
    beyond += specification.get("stopping", {}).get("audit", 0)
    searched = search["points"] * search["seeds"]
    budget = specification.get("budget", {}).get("trials")
    if budget is None:
        return PlannedTrials(searched, beyond)
    room = budget // len(specification["arms"])
    searched = min(search["points"], room // search["seeds"]) * search["seeds"]
    return PlannedTrials(searched, min(beyond, room - searched))


def campaign_progress(campaign: CampaignRecord, tallies: Iterable[Tally]) -> CampaignProgress:
    """Return how far a campaign is.

    Args:
        campaign: Which.
        tallies: Of all its trials.
    """
    tallies = list(tallies)
    counts = {state: sum(each.num_trials for each in tallies if each.state is state) for state in TrialState}
    total, num_arms = sum(counts.values()), len(campaign.specification["arms"])
    has_all = campaign.state is CampaignState.SUCCEEDED and campaign.reason == ALL_ENDED
    planned = planned_trials(campaign.specification)
    return CampaignProgress(
        num_trials={state: count for state, count in counts.items() if count},
        num_planned=total if has_all else max(total, planned.total * num_arms),
        seconds_left=_seconds_left(campaign, tallies) if campaign.state is CampaignState.RUNNING else None,
    )


def states_text(num_trials: Mapping[TrialState, int]) -> str:
    """Return counts by state in words, as "32 completed, 44 stopped"."""
    return ", ".join(f"{count} {state.lower()}" for state, count in num_trials.items() if count) or "none yet"


def duration_text(seconds: float) -> str:
    """Return a span of time in its two largest units."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def untold_text(num_changes: int) -> str:
    """Return how much of a campaign its tracker has not been told; empty if it has been told everything."""
    if not num_changes:
        return ""
    return f"{num_changes} {'change is' if num_changes == 1 else 'changes are'} not in MLflow yet"


def _seconds_left(campaign: CampaignRecord, tallies: Sequence[Tally]) -> float | None:
    """Guess how long the rest takes at the speed so far.

    A trial of the search takes as many steps as those that have ended, one of finals or audit takes all of them; and no
    trial that has not ended takes more than all.
    """
    ended = [each for each in tallies if each.state.is_terminal]
    num_ended, steps_ended = sum(each.num_trials for each in ended), sum(each.num_steps for each in ended)
    num_steps, device_seconds = sum(each.num_steps for each in tallies), sum(each.device_seconds for each in tallies)
    if not steps_ended or not device_seconds:
        return None
    planned, num_arms = planned_trials(campaign.specification), len(campaign.specification["arms"])
    all_steps = campaign.specification["task"]["steps"]
    expected = num_arms * (planned.search * steps_ended / num_ended + planned.beyond * all_steps) - num_steps
    most = (num_arms * planned.total - num_ended) * all_steps - (num_steps - steps_ended)
    left = max(0.0, min(expected, most))
    return float(left * device_seconds / num_steps / campaign.specification["resources"]["workers"])
