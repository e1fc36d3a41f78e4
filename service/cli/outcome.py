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

from spectune.service.campaign.analysis.best import Ranking, campaign_ranking, own_best
from spectune.service.campaign.analysis.leaderboard import ArmStanding, PointStanding, leaderboard
from spectune.service.campaign.analysis.pareto import ParetoPoint, campaign_front
from spectune.service.campaign.analysis.report import final_verdicts
from spectune.service.campaign.model.lifecycle import CampaignState, TrialState
from spectune.service.campaign.model.numbers import interval_text, number_text, plain_json
from spectune.service.campaign.model.progress import campaign_progress, tally
from spectune.service.campaign.model.records import CampaignRecord, Observation, TrialRecord
from spectune.service.campaign.specification.specification import Specification
from spectune.service.campaign_file import write_yaml
from spectune.service.cli.consoles import print_table
from spectune.service.data_directory import DataDirectory
from spectune.service.findings.best import shares_of
from spectune.service.findings.comparison_lines import verdict_lines
from spectune.service.ports import CampaignPages
from spectune.service.tracking import links


def outcome_document(
    specification: Specification,
    campaign: CampaignRecord,
    trials: Sequence[TrialRecord],
    *,
    wall_seconds: float,
    observations: Sequence[Observation] = (),
) -> dict[str, Any]:
    """Return the outcome as JSON-plain values.

    Args:
        specification: What was asked for.
        campaign: The campaign at rest.
        trials: All its trials.
        wall_seconds: From the command to the end, tracking included.
        observations: Where there are two objectives, the last one of each trial.
    """
    standings = _standings(specification, trials)
    ranking = campaign_ranking(campaign, standings, tally(trials))
    best = ranking.best
    arms = [_arm_document(specification, standing) for standing in standings]
    front = [asdict(point) for point in _front(specification, trials, observations)]
    outcome = {
        "campaign_id": campaign.campaign_id,
        "state": campaign.state,
        "lacking": dict(shares_of(specification, trials, state=campaign.state).lacking),
        "arms": arms,
        "best": None if best is None else best.document(str(specification.arms[best.arm].name)),
        "why_no_best": ranking.why_none,
        "progress": campaign_progress(campaign, tally(trials)).text,
        "pareto": front if len(specification.objectives) > 1 else None,
        "wall_seconds": wall_seconds,
    }
    plain: dict[str, Any] = plain_json(outcome)
    return plain


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
    shares = shares_of(specification, trials, state=campaign.state)
    for note in shares.notes:  # before any number
        console.print(f"\n[bold red]{escape(note)}[/]", highlight=False, soft_wrap=True)
    tallies = tally(trials)
    ranking = campaign_ranking(campaign, _standings(specification, trials), tallies)
    console.print(f"\n{_title(specification)}", highlight=False, soft_wrap=True)
    print_table(console, _table(specification, ranking.arms))
    for line in _configurations(specification, ranking.arms):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(specification.objectives) > 1:
        print_table(console, _front_table(specification, _front(specification, trials, observations)))
    else:
        _show_verdicts(console, specification, trials)
        _show_best(console, specification, ranking)
    console.print(f"\n{campaign_progress(campaign, tallies).text}", highlight=False)
    console.print(f"campaign {campaign.campaign_id} {campaign.state}", highlight=False, end="")
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
    """Return what the values of the table are, and how they were obtained."""
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


def _show_best(console: Console, specification: Specification, ranking: Ranking) -> None:
    """Print the best configuration with its value and how that was obtained, or why none may be named."""
    best = ranking.best
    if best is None:
        console.print(f"\nno best point: {ranking.why_none}", highlight=False, markup=False)
        return
    arm, metric = specification.arms[best.arm], specification.objective.metric
    console.print(f"\nbest configuration (arm {arm.name}, point {best.standing.point}):", highlight=False)
    console.print(f"# {metric} {best.text}, {best.how}", highlight=False, markup=False, soft_wrap=True)
    document = {"optimizer": arm.optimizer, **best.standing.config}
    console.print(write_yaml(document).rstrip(), highlight=False, markup=False)


def _show_failure(
    console: Console, campaign: CampaignRecord, trials: Sequence[TrialRecord], data: DataDirectory
) -> None:
    """Print where the first failed trial's code raised and what, and where the whole story is."""
    for trial in trials:
        if trial.state is TrialState.FAILED:
            for line in _raised(trial.message):
                console.print(f"trial {trial.number}: {line}", highlight=False, markup=False, soft_wrap=True)
            where = f"spectune logs {campaign.campaign_id} --trial {trial.number} --data-dir {data.root}"
            console.print(f"what its code printed: {where}", highlight=False, markup=False, soft_wrap=True)
            break
    logs = [data.driver_log(campaign.campaign_id, attempt) for attempt in range(campaign.attempt, 0, -1)]
    for log in [log for log in logs if log.exists()][:1]:
        console.print(f"the driver's log: {log}", highlight=False, markup=False, soft_wrap=True)


def _raised(message: str) -> list[str]:
    """Return the last frame of a traceback, file and line, and what was raised there."""
    lines = message.strip().splitlines() or [""]
    frames = [line.strip() for line in lines if line.startswith('  File "')]
    return [*frames[-1:], lines[-1]]


def _standings(specification: Specification, trials: Sequence[TrialRecord]) -> tuple[ArmStanding, ...]:
    return leaderboard(trials, num_arms=len(specification.arms), mode=specification.objective.mode)


def _arm_document(specification: Specification, standing: ArmStanding) -> dict[str, Any]:
    arm, best = specification.arms[standing.arm], standing.best
    return {
        "name": arm.name,
        "optimizer": arm.optimizer,
        "num_trials": sum(standing.num_trials.values()),
        "states": {state.value: count for state, count in standing.num_trials.items() if count},
        "best": None
        if best is None
        else {
            "value": best.value,
            "half_width": best.half_width,
            "config": dict(best.config),
            "trial": best.trials[0],
        },
        "finals": [
            {
                "point": each.point,
                "value": each.value,
                "spread": each.spread,
                "half_width": each.half_width,
                "num_seeds": len(each.trials),
            }
            for each in standing.finals
        ],
    }


def _table(specification: Specification, standings: Sequence[ArmStanding]) -> Table:
    table = Table()
    finals = ("mean of finals",) if specification.finals is not None else ()
    for column in ("arm", "trials", "completed", "stopped", "other", "best search value", *finals):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
    for standing in standings:
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
    return "none completed" if point is None else interval_text(point.value, point.half_width)


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
        costs = [number_text(cost) for cost in each.costs.values()]
        table.add_row(specification.arms[each.arm].name, str(each.point), *costs)
    return table


def _configurations(specification: Specification, standings: Sequence[ArmStanding]) -> list[str]:
    """Write each arm's best point on a line: what was searched, without what was fixed."""
    names = [arm.name for arm in specification.arms]
    width = max(map(len, names))
    return [
        f"{names[standing.arm]:{width}}  " + _short(specification, standing.arm, best.standing)
        for standing in standings
        if (best := own_best(standing)) is not None
    ]


def _short(specification: Specification, arm: int, point: PointStanding) -> str:
    searched = {name: value for name, value in point.config.items() if name not in specification.arms[arm].fixed}
    words = {name: number_text(value) if isinstance(value, float) else str(value) for name, value in searched.items()}
    return " ".join(f"{name}={word}" for name, word in words.items())
