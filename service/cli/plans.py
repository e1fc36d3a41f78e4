"""How many trials of each arm train together, told when it is found out and, with what came of it, at the end."""

from __future__ import annotations

from collections.abc import Sequence

from service.campaign.records import Event, TrialRecord
from service.campaign.specification import Specification


def plan_line(specification: Specification, event: Event) -> str:
    """Write what was found out about an arm."""
    members, gain = event.body["members"], event.body["predicted_gain"]
    arm = specification.arms[event.body["arm"]].name
    together = "one trial at a time" if members == 1 else f"{members} trials at a time, {gain:.1f} times as fast"
    return f"{arm} trains {together} ({event.body['why']})"


def achieved_line(specification: Specification, event: Event, trials: Sequence[TrialRecord]) -> str | None:
    """Compare what was predicted for an arm with what its trials took; None where they trained one at a time.

    The time of a trial's step alone was measured without evaluation, which what the trials took includes.
    """
    if event.body["members"] == 1:
        return None
    mine = [trial for trial in trials if trial.arm == event.body["arm"] and trial.last_step]
    seconds, steps = sum(trial.device_seconds for trial in mine), sum(trial.last_step for trial in mine)
    if not seconds:
        return None
    alone = event.body["seconds_per_member_step"]["1"]
    arm, predicted = specification.arms[event.body["arm"]].name, event.body["predicted_gain"]
    faster = f"{alone * steps / seconds:.1f} times as fast as one at a time, evaluation included"
    return f"{arm}: {event.body['members']} trials at a time were {faster} (predicted without it: {predicted:.1f})"
