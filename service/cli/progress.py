"""Live progress of a campaign: a bar per arm with what runs, what was stopped, the best so far, and the time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from service.campaign.lifecycle import CampaignState, TrialState
from service.campaign.records import CampaignRecord, Phase, TrialRecord
from service.campaign.specification import Specification

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
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        total = _most_trials(specification)
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
        for index, bar in enumerate(self._bars):
            mine = [trial for trial in trials if trial.arm == index]
            status = _status(mine, minimize=self._specification.objective.mode == "minimize")
            self._progress.update(bar, completed=_num_ended(mine), status=status)
        waits = campaign.message if campaign.state is CampaignState.RUNNING else ""
        overall = f"{campaign.state.lower()}, {waits or self._time_left(campaign, trials)}"
        self._progress.update(self._all, completed=_num_ended(trials), status=overall)
        if not self._console.is_terminal and time.monotonic() - self._said_at >= LINE_SECONDS:
            self._said_at = time.monotonic()
            self.say(f"{self._said_at - self._started_at:4.0f} s  {_status(trials)}  {overall}")

    def _time_left(self, campaign: CampaignRecord, trials: Sequence[TrialRecord]) -> str:
        """Estimate from the trials that have ended: their mean device time, spread over the workers."""
        ended = [trial for trial in trials if trial.state.is_terminal]
        if campaign.state is not CampaignState.RUNNING or not ended:
            return "time left unknown" if not campaign.state.is_terminal else "done"
        total = _most_trials(self._specification) * len(self._bars)
        mean = sum(trial.device_seconds for trial in ended) / len(ended)
        used = sum(trial.device_seconds for trial in trials if not trial.state.is_terminal)
        left = max(0.0, mean * (total - len(ended)) - used) / self._specification.resources.workers
        return f"about {left:.0f} s left"


def _most_trials(specification: Specification) -> int:
    """Count the trials that an arm has at most."""
    share = specification.trials_per_arm
    wanted = specification.trials_wanted_per_arm
    return wanted if share is None else min(wanted, share)


def _num_ended(trials: Sequence[TrialRecord]) -> int:
    return sum(trial.state.is_terminal for trial in trials)


def _status(trials: Sequence[TrialRecord], *, minimize: bool | None = None) -> str:
    counts = {state: sum(trial.state is state for trial in trials) for state in TrialState}
    words = [f"{counts[TrialState.COMPLETED]} completed", f"{counts[TrialState.RUNNING]} running"]
    for state in (TrialState.STOPPED, TrialState.DIVERGED, TrialState.FAILED, TrialState.CANCELLED):
        if counts[state]:
            words.append(f"{counts[state]} {state.lower()}")
    values = [
        trial.objective
        for trial in trials
        if trial.state is TrialState.COMPLETED and trial.phase is Phase.SEARCH and trial.objective is not None
    ]
    if values and minimize is not None:
        words.append(f"best {min(values) if minimize else max(values):.4g}")
    return ", ".join(words)
