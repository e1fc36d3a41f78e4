"""How many trials of each arm train together, told when it is found out and, with what came of it, at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from spectune.service.campaign.model.records import Event, Observation, TrialRecord
from spectune.service.campaign.specification.specification import Specification


def plan_line(specification: Specification, event: Event) -> str:
    """Write what was found out about an arm."""
    members, gain = event.body["members"], event.body["predicted_gain"]
    arm = specification.arms[event.body["arm"]].name
    together = "one trial at a time" if members == 1 else f"{members} trials at a time, {gain:.1f} times as fast"
    return f"{arm} trains {together} ({event.body['why']})"


def achieved_line(
    specification: Specification, event: Event, trials: Sequence[TrialRecord], observations: Sequence[Observation]
) -> str | None:
    """Compare what was predicted for an arm with the steps that its trials report; None where they trained alone.

    Both are times of steps, without evaluation; the prediction is from when the plan was made, under its load.
    """
    mine = {trial.number for trial in trials if trial.arm == event.body["arm"]}
    seconds = [
        each.metrics["step_time_seconds"]
        for each in observations
        if each.trial in mine and not each.metrics.get("timing_valid") and "step_time_seconds" in each.metrics
    ]
    if event.body["members"] == 1 or not seconds:
        return None
    achieved = event.body["seconds_per_member_step"]["1"] / median(seconds)
    arm, predicted = specification.arms[event.body["arm"]].name, event.body["predicted_gain"]
    faster = f"{achieved:.1f} times as fast as one alone had been"
    return f"{arm}: {event.body['members']} trials at a time were {faster} (predicted: {predicted:.1f})"


def fusion_lines(specification: Specification, events: Sequence[Event]) -> list[str]:
    """Say for each arm how far its fused steps lay apart from steps alone, where the campaign asks for it."""
    lines = []
    for index, arm in enumerate(specification.arms):
        checks = [event.body for event in events if event.body["arm"] == index]
        if not checks:
            continue
        worst = max(checks, key=_excess)
        said = f"{arm.name}: {len(checks)} fused steps checked, the furthest from the step alone"
        apart = f"by {float(worst['deviation']):.2g}"
        if all(each["holds"] for each in checks):
            lines.append(f"{said} {apart} (at most {worst['tolerance']:.2g})")
        else:
            lines.append(
                f"[red]warning[/] {said} {apart}, more than {worst['tolerance']:.2g}: trials after it trained alone"
            )
    return lines


def _excess(check: Mapping[str, Any]) -> float:
    ratio = float(check["deviation"]) / check["tolerance"]
    return math.inf if math.isnan(ratio) else ratio
