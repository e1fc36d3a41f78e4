"""Cohorts: trials in training in one process, whichever engine trains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from spectune.trainers.checkpoints import State
from spectune.trainers.engines.fusibility import fusion_problem
from spectune.trainers.engines.population import Population
from spectune.trainers.engines.solo import Outcome, SoloTrial, never
from spectune.trainers.setting import TrialSetting
from spectune.trainers.user_code import failure_text


class Cohort(Protocol):
    """Trials that train together; all of them have one structure."""

    @property
    def trials(self) -> Sequence[int]:
        """The numbers of its trials."""

    def admit(self, trial: int, setting: TrialSetting, state: State | None = None) -> None:
        """Take a trial in, at its start or from a state; raises what its code raises, and is then as before."""

    def evict(self, trials: Sequence[int]) -> None:
        """Drop trials at once."""

    def advance(self, targets: Mapping[int, int], *, should_stop: Callable[[], bool] = never) -> dict[int, Outcome]:
        """Train each of these trials until it has taken so many steps in all; the others wait."""

    def report(self, trials: Sequence[int]) -> dict[int, dict[str, float] | str]:
        """Evaluate trials now, and sum up their steps since their reports before; text is what failed."""

    def state(self, trial: int) -> State:
        """Copy everything a trial needs to go on, in either engine."""

    def step(self, trial: int) -> int:
        """Return how many steps a trial has taken."""

    def reason(self, trial: int) -> str:
        """Return why the last `advance` did not reach a trial's step; else empty."""


class SoloCohort:
    """Trials trained one after the other, by the solo engine."""

    def __init__(self) -> None:
        self._trials: dict[int, SoloTrial] = {}

    @property
    def trials(self) -> Sequence[int]:
        """The numbers of its trials."""
        return tuple(self._trials)

    def admit(self, trial: int, setting: TrialSetting, state: State | None = None) -> None:
        """Take a trial in."""
        member = SoloTrial(setting)
        if state is not None:
            member.restore(state)
        self._trials[trial] = member

    def evict(self, trials: Sequence[int]) -> None:
        """Drop trials."""
        for trial in trials:
            del self._trials[trial]

    def advance(self, targets: Mapping[int, int], *, should_stop: Callable[[], bool] = never) -> dict[int, Outcome]:
        """Train each trial to its target."""
        return {trial: self._trials[trial].advance(step, should_stop=should_stop) for trial, step in targets.items()}

    def report(self, trials: Sequence[int]) -> dict[int, dict[str, float] | str]:
        """Evaluate trials now."""
        return {trial: self._report(trial) for trial in trials}

    def _report(self, trial: int) -> dict[str, float] | str:
        try:
            return self._trials[trial].report()
        except BaseException as error:  # a user's code can raise anything
            return failure_text(error)

    def state(self, trial: int) -> State:
        """Copy a trial's state."""
        return self._trials[trial].state()

    def step(self, trial: int) -> int:
        """Return how many steps a trial has taken."""
        return self._trials[trial].step

    def reason(self, trial: int) -> str:
        """Return why a trial did not reach its step."""
        return self._trials[trial].reason


def cohort_for(setting: TrialSetting, *, is_alone: bool) -> Cohort:
    """Make an empty cohort for trials of a setting's structure, or for one that is to be alone in its slot."""
    return SoloCohort() if is_alone or fusion_problem(setting.task) is not None else Population()
