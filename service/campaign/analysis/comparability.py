"""Whether a campaign's arms can be compared: each must have had its share, or the best is only the one that was tried.

An arm lacks its share if the campaign ended and the arm

    failed               every trial of it failed or was lost
    was never tried      none of its trials ever reported
    was cut short        trials of it were cancelled, and none had completed, or it had less than half the device
                         seconds of another

That all its trials diverged is a result: the arm had its share, and its space is to blame. It is said all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from spectune.service.campaign.model.lifecycle import STOPPED_BY_USER, CampaignState, TrialState
from spectune.service.campaign.model.progress import Tally
from spectune.service.campaign.model.records import CampaignRecord, TrialRecord

LEAST_SHARE: Final = 0.5
"""Of the device seconds of the arm that had most; turns keep them within a report of each worker."""
_FAILED: Final = frozenset({TrialState.FAILED, TrialState.LOST})
_TOLD: Final = frozenset({TrialState.COMPLETED, TrialState.STOPPED})
_ENDED: Final = _FAILED | _TOLD | {TrialState.DIVERGED}  # by themselves


@dataclass(frozen=True)
class Comparability:
    """What the arms of a campaign lack.

    Attributes:
        lacking: What each arm that did not get its share lacks, by the arm's name; empty where all got theirs.
        fruitless: The arms that had their share and of which every trial diverged.
        num_arms: How many arms there are.
    """

    lacking: Mapping[str, str] = field(default_factory=dict)
    fruitless: Sequence[str] = ()
    num_arms: int = 1

    @property
    def is_comparable(self) -> bool:
        """Whether a best over all arms may be named."""
        return not self.lacking

    @property
    def sentence(self) -> str:
        """Return what the arms lack, in a sentence; empty if they lack nothing."""
        parts = [f"{', '.join(names)}: {what}" for what, names in _grouped(self.lacking.items())]
        if self.lacking and self.num_arms > 1:
            parts.append("arms are not comparable")
        return "; ".join(parts)

    @property
    def notes(self) -> list[str]:
        """Return what a reader must know of the arms: what they lack, then which diverged."""
        diverged = [f"{', '.join(self.fruitless)}: every trial diverged"] if self.fruitless else []
        return [each for each in (self.sentence, *diverged) if each]


@dataclass(frozen=True)
class TrialGroup:
    """Trials of an arm that ended in the same way, in the few numbers that matter here.

    Attributes:
        is_finite: Whether their last objectives are finite numbers.
        is_unwanted: Whether a user ended them.
        most_steps: The most that one of them has trained.
        device_seconds: Of all of them.
    """

    arm: int
    state: TrialState
    is_finite: bool
    is_unwanted: bool
    most_steps: int
    device_seconds: float

    @property
    def is_cut_short(self) -> bool:
        """Whether the campaign's end is theirs."""
        return not self.state.is_terminal or (self.state is TrialState.CANCELLED and not self.is_unwanted)

    @property
    def ended_nowhere(self) -> bool:
        """Whether they diverged, by their state or by a last objective that is no finite number."""
        return self.state is TrialState.DIVERGED or (self.state in _TOLD and not self.is_finite)


def group_of(trial: TrialRecord) -> TrialGroup:
    """Build a group of one trial."""
    return TrialGroup(
        arm=trial.arm,
        state=trial.state,
        is_finite=trial.objective is not None and math.isfinite(trial.objective),
        is_unwanted=trial.reason == STOPPED_BY_USER,
        most_steps=trial.last_step,
        device_seconds=trial.device_seconds,
    )


def lacking_sentence(campaign: CampaignRecord, tallies: Iterable[Tally]) -> str:
    """Return what arms of a campaign lack that did not get their share; empty if all got theirs.

    Args:
        campaign: Which.
        tallies: Of all its trials.
    """
    groups = [
        TrialGroup(each.arm, each.state, True, each.is_unwanted, each.num_steps, each.device_seconds)
        for each in tallies
    ]
    names = [arm["name"] for arm in campaign.specification["arms"]]
    return comparability(names, groups, state=campaign.state).sentence


def comparability(arms: Sequence[str], groups: Iterable[TrialGroup], *, state: CampaignState) -> Comparability:
    """Return which arms of a campaign did not get their share; none while it goes on.

    Args:
        arms: Their names, in order.
        groups: All trials, in groups of any size.
        state: Where the campaign stands.
    """
    if not state.is_terminal:
        return Comparability(num_arms=len(arms))
    of_arms: dict[str, list[TrialGroup]] = {name: [] for name in arms}
    for group in groups:
        of_arms[arms[group.arm]].append(group)
    most = max(sum(group.device_seconds for group in mine) for mine in of_arms.values())
    lacks = {name: _lack(mine, most) for name, mine in of_arms.items()}
    fruitless = [name for name, mine in of_arms.items() if mine and all(group.ended_nowhere for group in mine)]
    return Comparability({name: what for name, what in lacks.items() if what}, fruitless, len(arms))


def _lack(trials: Sequence[TrialGroup], most_seconds: float) -> str:
    """Return what an arm lacks; empty if it got its share."""
    states = {group.state for group in trials}
    if states and states <= _FAILED:
        return "every trial failed"
    if states.isdisjoint(_ENDED) and all(group.most_steps == 0 for group in trials):
        return "never tried"
    if not any(group.is_cut_short for group in trials):
        return ""
    if TrialState.COMPLETED not in states:
        return "no trial completed"
    seconds = sum(group.device_seconds for group in trials)
    return f"{seconds:.3g} of {most_seconds:.3g} device seconds" if seconds < LEAST_SHARE * most_seconds else ""


def _grouped(lacking: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Gather the arms that lack the same, in their order."""
    grouped: dict[str, list[str]] = {}
    for name, what in lacking:
        grouped.setdefault(what, []).append(name)
    return list(grouped.items())
