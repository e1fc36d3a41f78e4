"""Live progress of a campaign: a bar per arm with what runs, what was stopped, the best so far, and the time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from spectune.service.campaign.analysis.best import own_best
from spectune.service.campaign.analysis.leaderboard import ArmStanding
from spectune.service.campaign.analysis.live_leaderboard import LiveLeaderboard
from spectune.service.campaign.model.lifecycle import CampaignState, TrialState
from spectune.service.campaign.model.progress import (
    CampaignProgress,
    campaign_progress,
    duration_text,
    planned_trials,
    states_text,
    tally,
)
from spectune.service.campaign.model.records import CampaignRecord, TrialRecord
from spectune.service.campaign.specification.specification import Specification

LINE_SECONDS = 10.0


class ProgressDisplay:
    """Shows progress on a terminal; elsewhere writes a line now and then.

    Args:
        specification: What was asked for.
        console: Where to show it.
    """

    def __init__(self, specification: Specification, console: Console) -> None:
        self._specification = specification
        self._console = console
        self._started_at = time.monotonic()
        self._said_at = 0.0
        self._board = LiveLeaderboard(num_arms=len(specification.arms), mode=specification.objective.mode)
        self._known: dict[int, tuple[TrialState, float | None]] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        total = planned_trials(specification.document()).total
        width = max(len(arm.name) for arm in specification.arms)
        self._bars: list[TaskID] = [
            self._progress.add_task(arm.name.ljust(width), total=total, status="") for arm in specification.arms
        ]
        self._all = self._progress.add_task("all".ljust(width), total=total * len(self._bars), status="starting")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._progress.stop()

    def say(self, message: str) -> None:
        """Print a line above the bars."""
        self._console.print(message, highlight=False)

    def show(self, campaign: CampaignRecord, trials: Sequence[TrialRecord]) -> None:
        """Show where the campaign stands now."""
        self._learn(trials)
        for bar, standing in zip(self._bars, self._board.standings(), strict=True):
            ended = sum(count for state, count in standing.num_trials.items() if state.is_terminal)
            self._progress.update(bar, completed=ended, status=_status(standing))
        progress = campaign_progress(campaign, tally(trials))
        waits = campaign.message if campaign.state is CampaignState.RUNNING else ""
        overall = f"{campaign.state.lower()}, {waits or _time_left(campaign, progress)}"
        self._progress.update(self._all, completed=progress.num_ended, total=progress.num_planned, status=overall)
        if not self._console.is_terminal and time.monotonic() - self._said_at >= LINE_SECONDS:
            self._said_at = time.monotonic()
            self.say(f"{self._said_at - self._started_at:4.0f} s  {progress.text}  {overall}")

    def _learn(self, trials: Sequence[TrialRecord]) -> None:
        """Take in what has changed since the last time: ranking ten thousand trials anew takes a while."""
        now = {trial.number: (trial.state, trial.objective if trial.state.is_terminal else None) for trial in trials}
        self._board.update(trial for trial in trials if self._known.get(trial.number) != now[trial.number])
        self._known = now


def _time_left(campaign: CampaignRecord, progress: CampaignProgress) -> str:
    if campaign.state.is_terminal:
        return "done"
    seconds = progress.seconds_left
    return "time left unknown" if seconds is None else f"about {duration_text(seconds)} left"


def _status(standing: ArmStanding) -> str:
    best = own_best(standing)
    return states_text(standing.num_trials) + ("" if best is None else f", best {best.text}")
