"""What a campaign has come to when its driver has nothing left to do: whether it succeeded, and what to say of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from spectune.service.campaign.analysis.comparability import comparability, group_of
from spectune.service.campaign.ending.budget import Exhausted
from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState, TrialState
from spectune.service.campaign.model.records import TrialRecord


def conclusion(
    arms: Sequence[str], trials: Sequence[TrialRecord], *, metric: str, has_finite: bool, spent: Exhausted | None
) -> tuple[CampaignEvent, str, str]:
    """Judge a campaign: what happens to it, and the reason and message of that.

    It fails if every trial of an arm failed, or if trials ended and not one of them with a finite objective.

    Args:
        arms: Their names, in order.
        trials: All trials.
        metric: The objective.
        has_finite: Whether any trial ever reported a finite objective.
        spent: What ended the campaign before its work was done, if anything did.
    """
    states: dict[int, set[TrialState]] = {}
    for trial in trials:
        states.setdefault(trial.arm, set()).add(trial.state)
    broken = [arms[arm] for arm, seen in sorted(states.items()) if seen <= {TrialState.FAILED, TrialState.LOST}]
    if broken:
        return CampaignEvent.FAIL, "arm_failed", f"every trial of an arm failed: {', '.join(broken)}"
    ended = [trial for trial in trials if trial.state is not TrialState.CANCELLED]
    if ended and not has_finite:
        return CampaignEvent.FAIL, "nothing_finite", f"no finite {metric} was ever reported ({_counted(ended)})"
    if len(ended) == len(trials) > 0 and all(_came_to_nothing(trial) for trial in ended):
        return CampaignEvent.FAIL, "nothing_finite", f"no trial ended with a finite {metric} ({_counted(ended)})"
    reason = "all_trials_ended" if spent is None else spent.limit.value
    notes = comparability(arms, map(group_of, trials), state=CampaignState.SUCCEEDED).notes
    return CampaignEvent.SUCCEED, reason, "; ".join([*notes, *([] if spent is None else [spent.message])])


def _came_to_nothing(trial: TrialRecord) -> bool:
    return group_of(trial).ended_nowhere or trial.state in (TrialState.FAILED, TrialState.LOST)


def _counted(trials: Sequence[TrialRecord]) -> str:
    counts = Counter(trial.state for trial in trials)
    return ", ".join(f"{number} {state.lower()}" for state, number in counts.most_common())
