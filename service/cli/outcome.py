"""What a campaign came to, for people (a leaderboard, the best configuration, the way into MLflow) and for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.campaign.leaderboard import ArmStanding, PointStanding, leaderboard
from service.campaign.lifecycle import CampaignState, TrialState
from service.campaign.pareto import ParetoPoint, campaign_front
from service.campaign.records import CampaignRecord, Observation, TrialRecord
from service.campaign.report import final_verdicts
from service.campaign.specification import Specification
from service.campaign_file import write_yaml
from service.data_directory import DataDirectory
from service.findings.best import best_first, shares_of
from service.findings.verdict_lines import verdict_lines
from service.ports import CampaignPages
from service.tracking import links


def outcome_document(
    specification: Specification,
    campaign: CampaignRecord,
    trials: Sequence[TrialRecord],
    *,
    wall_seconds: float,
    observations: Sequence[Observation] = (),
) -> dict[str, Any]:
    """Give the outcome as JSON-plain values.

    Args:
        specification: What was asked for.
        campaign: The campaign at rest.
        trials: All its trials.
        wall_seconds: From the command to the end, tracking included.
        observations: Where there are two objectives, the last one of each trial.
    """
    standings = _standings(specification, trials)
    arms = [_arm_document(specification, standing) for standing in standings]
    front = [asdict(point) for point in _front(specification, trials, observations)]
    return {
        "campaign_id": campaign.campaign_id,
        "state": campaign.state,
        "lacking": dict(shares_of(specification, trials, state=campaign.state).lacking),
        "arms": arms,
        "pareto": front if len(specification.objectives) > 1 else None,
        "wall_seconds": wall_seconds,
    }


def show_outcome(
    console: Console,
    specification: Specification,
    campaign: CampaignRecord,
    trials: Sequence[TrialRecord],
    *,
    data: DataDirectory,
    observations: Sequence[Observation] = (),
) -> None:
    """Print the outcome for people; with two objectives, the points that nothing dominates."""
    standings = _standings(specification, trials)
    shares = shares_of(specification, trials, state=campaign.state)
    for note in shares.notes:  # before any number
        console.print(f"\n[bold red]{escape(note)}[/]", highlight=False, soft_wrap=True)
    console.print(f"\n{_title(specification)}", highlight=False, soft_wrap=True)
    console.print(_table(specification, standings))
    for line in _configurations(specification, standings):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(specification.objectives) > 1:
        console.print(_front_table(specification, _front(specification, trials, observations)))
    else:
        _show_verdicts(console, specification, trials)
        if shares.is_comparable:
            _show_best(console, specification, best_first(specification, standings)[0])
    console.print(f"\ncampaign {campaign.campaign_id} {campaign.state}", highlight=False, end="")
    console.print(f" ({campaign.message})" if campaign.message else "", highlight=False, markup=False)
    console.print(f"compare its arms: spectune report {campaign.campaign_id}", highlight=False)
    if campaign.state is CampaignState.FAILED:
        _show_failure(console, campaign, trials, data)


def show_tracking(console: Console, *, data: DataDirectory, pages: CampaignPages) -> None:
    """Print how to look at the runs in MLflow."""
    console.print("\nlook at every trial in MLflow:", highlight=False)
    mlflow = os.path.relpath(Path(sys.executable).parent / "mlflow")
    named = {"the campaign": pages.run, "its trials and their curves": pages.trials, "the best, compared": pages.best}
    lines = [links.ui_command(data, mlflow=mlflow), *(f"{name}: {page}" for name, page in named.items() if page)]
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _title(specification: Specification) -> str:
    """Say what the values of the table are, and how they were obtained."""
    seeds, finals = specification.search.seeds, specification.finals
    searched = f"mean of {seeds} seeds ± 95 % interval" if seeds > 1 else "one seed"
    judged = f"finals: mean of {finals.seeds} new seeds ± 95 % interval" if finals else ""
    doubt = "so small differences may be chance" if seeds == 1 and not finals else ""
    how = ", ".join(filter(None, [f"search: {searched}" if finals else searched, judged, doubt]))
    return f"{specification.objective.metric} at step {specification.task.steps}, best point of each arm ({how})"


def _show_verdicts(console: Console, specification: Specification, trials: Sequence[TrialRecord]) -> None:
    """Print what the finals say of each pair of arms."""
    names = [arm.name for arm in specification.arms]
    for number, line in enumerate(verdict_lines(final_verdicts(specification, trials), names=names)):
        console.print("" if number else "\n", line, sep="", highlight=False, markup=False, soft_wrap=True)


def _show_best(console: Console, specification: Specification, standing: ArmStanding) -> None:
    """Print the best arm's configuration, if there is one."""
    point = standing.final or standing.best
    if point is None:
        return
    arm = specification.arms[standing.arm]
    console.print(f"\nbest configuration (arm {arm.name}, point {point.point}):", highlight=False)
    document = {"optimizer": arm.optimizer, **point.config}
    console.print(write_yaml(document).rstrip(), highlight=False, markup=False)


def _show_failure(
    console: Console, campaign: CampaignRecord, trials: Sequence[TrialRecord], data: DataDirectory
) -> None:
    """Print the last line of the first failed trial's traceback, and where the whole story is."""
    for trial in trials:
        if trial.state is TrialState.FAILED:
            console.print(f"trial {trial.number}: {trial.message.strip().splitlines()[-1]}", markup=False)
            break
    logs = [data.driver_log(campaign.campaign_id, attempt) for attempt in range(campaign.attempt, 0, -1)]
    for log in [log for log in logs if log.exists()][:1]:
        console.print(f"the driver's log: {log}", highlight=False, markup=False, soft_wrap=True)


def _standings(specification: Specification, trials: Sequence[TrialRecord]) -> tuple[ArmStanding, ...]:
    return leaderboard(trials, num_arms=len(specification.arms), mode=specification.objective.mode)


def _arm_document(specification: Specification, standing: ArmStanding) -> dict[str, Any]:
    arm, best = specification.arms[standing.arm], standing.best
    return {
        "name": arm.name,
        "optimizer": arm.optimizer,
        "num_trials": sum(standing.num_trials.values()),
        "states": {state.value: count for state, count in standing.num_trials.items() if count},
        "best": None if best is None else {"value": best.value, "config": dict(best.config), "trial": best.trials[0]},
        "finals": [
            {"point": each.point, "value": each.value, "spread": each.spread, "num_seeds": len(each.trials)}
            for each in standing.finals
        ],
    }


def _table(specification: Specification, standings: Sequence[ArmStanding]) -> Table:
    table = Table()
    finals = ("finals",) if specification.finals is not None else ()
    for column in ("arm", "trials", "completed", "stopped", "other", "search" if finals else "best", *finals):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
    for standing in best_first(specification, standings):
        table.add_row(*_row(specification, standing))
    return table


def _row(specification: Specification, standing: ArmStanding) -> list[str]:
    counts = standing.num_trials
    others = {state: n for state, n in counts.items() if n and state not in (TrialState.COMPLETED, TrialState.STOPPED)}
    best = standing.best
    finals = [_told(standing.final)] if specification.finals is not None else []
    return [
        specification.arms[standing.arm].name,
        str(sum(counts.values())),
        str(counts[TrialState.COMPLETED]),
        str(counts[TrialState.STOPPED]),
        ", ".join(f"{n} {state.lower()}" for state, n in others.items()) or "0",
        _told(best),
        *finals,
    ]


def _told(point: PointStanding | None) -> str:
    if point is None:
        return "none completed"
    return f"{point.value:.4g}" + ("" if point.half_width is None else f" ± {point.half_width:#.2g}")


def _front(
    specification: Specification, trials: Sequence[TrialRecord], observations: Sequence[Observation]
) -> list[ParetoPoint]:
    """Find the Pareto front of a campaign with two objectives; empty with one."""
    if len(specification.objectives) == 1:
        return []
    return campaign_front(specification, _standings(specification, trials), trials, observations)


def _front_table(specification: Specification, front: Sequence[ParetoPoint]) -> Table:
    table = Table(title="Pareto front: no other point is as good in both objectives", title_justify="left")
    for column in ("arm", "point", *(f"{each.metric} ({each.mode})" for each in specification.objectives)):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for each in front:
        costs = [f"{cost:.4g}" for cost in each.costs.values()]
        table.add_row(specification.arms[each.arm].name, str(each.point), *costs)
    return table


def _configurations(specification: Specification, standings: Sequence[ArmStanding]) -> list[str]:
    """Write each arm's best point on a line: what was searched, without what was fixed."""
    names = [arm.name for arm in specification.arms]
    width = max(map(len, names))
    return [
        f"{names[standing.arm]:{width}}  " + _short(specification, standing.arm, standing.final or standing.best)
        for standing in best_first(specification, standings)
        if standing.best is not None
    ]


def _short(specification: Specification, arm: int, point: PointStanding) -> str:
    searched = {name: value for name, value in point.config.items() if name not in specification.arms[arm].fixed}
    words = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in searched.items()}
    return " ".join(f"{name}={word}" for name, word in words.items())
