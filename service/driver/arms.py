"""An arm while it runs: its study, its stopping rule, and its trials.

What is decided here depends only on what was observed, never on which slot observed it or when the ledger was told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import assert_never

from spectune.service.campaign.ending.finals import extra_trials
from spectune.service.campaign.model import naming
from spectune.service.campaign.model.lifecycle import TrialEvent, next_trial_state
from spectune.service.campaign.model.outcomes import SeedHistory
from spectune.service.campaign.model.points import Point
from spectune.service.campaign.model.records import Observation, Phase, TrialRecord
from spectune.service.campaign.specification.specification import Specification
from spectune.service.campaign.stopping.halving import RungDecision, RungOutcome, StoppingRule
from spectune.service.campaign.study import NoPoint, arm_study
from spectune.service.driver.arm_trial import ArmTrial, history_of, record_of, restored


class Fate(StrEnum):
    """What becomes of a trial after a report."""

    CONTINUE = "continue"
    WAIT = "wait"  # for other trials of its arm, at a rung
    STOP = "stop"
    COMPLETE = "complete"


class Arm:
    """One arm of a campaign.

    Args:
        specification: The campaign's.
        index: Which arm this is.

    Attributes:
        index: Which arm this is.
        device_seconds: Device time that its trials have used.
        best: The best finite objective of any report; None before the first.
    """

    def __init__(self, specification: Specification, index: int) -> None:
        self.index = index
        self._specification = specification
        self._rungs = frozenset(specification.rungs())
        self._num_seeds = specification.search.seeds
        self._study = arm_study(specification, index)
        self._stopping = _stopping_rule(specification)
        self._trials: dict[int, ArmTrial] = {}
        self.device_seconds = 0.0
        self.best: float | None = None
        self._has_extra = specification.finals is not None or specification.stopping.audit > 0

    # Drawing

    def draw(self) -> list[ArmTrial]:
        """Make new trials: those of the next point, one per seed, or what is beyond the search; empty for none now."""
        point = self._study.ask() if self._has_room() else None
        if point is not None:
            return [self._enter(self._trial(point, seed_index)) for seed_index in range(self._num_seeds)]
        return [self._enter(trial) for trial in self._extra()]

    def can_draw(self) -> bool:
        """Return whether there would be new trials now."""
        return (self._has_room() and self._study.no_point is None) or self._is_extra_due()

    def num_drawable(self) -> int:
        """Count the trials that could be drawn now; fewer may come where the space is exhausted."""
        if self._is_extra_due():
            finals = self._specification.finals
            return self._specification.stopping.audit + (finals.keep * finals.seeds if finals is not None else 0)
        if not self._has_room():
            return 0
        room = self._specification.trials_per_arm
        askable = self._study.num_askable * self._num_seeds
        return askable if room is None else min(askable, room - len(self._trials))

    def most_at_once(self) -> int:
        """Count the trials that can ever be open at the same time."""
        return self._study.most_open * self._num_seeds

    def may_draw(self) -> bool:
        """Return whether there would be new trials now or later."""
        return (self._has_room() and self._study.no_point in (None, NoPoint.WAITING)) or self._has_extra

    def _has_room(self) -> bool:
        """Return whether the arm's share of the budget has room for a point."""
        room = self._specification.trials_per_arm
        return room is None or len(self._trials) + self._num_seeds <= room

    def _is_extra_due(self) -> bool:
        """Return whether the search has ended and what is beyond it has not begun."""
        is_asked = not self._has_room() or self._study.no_point not in (None, NoPoint.WAITING)
        return self._has_extra and is_asked and all(trial.state.is_terminal for trial in self._searched())

    def _extra(self) -> list[ArmTrial]:
        """Make the trials beyond the search, once it has ended, as far as the budget has room."""
        if not self._is_extra_due():
            return []
        self._has_extra = False
        extra = extra_trials(self._specification, self.index, [record_of(trial) for trial in self._trials.values()])
        room = self._specification.trials_per_arm
        return [
            ArmTrial(self, each.number, each.point, each.seed_index, config=each.config, ask=each.ask)
            for each in extra[: None if room is None else max(0, room - len(self._trials))]
        ]

    def _searched(self) -> list[ArmTrial]:
        return [trial for trial in self._trials.values() if trial.is_searched]

    def unfinished(self) -> list[ArmTrial]:
        """List the trials that have not ended, by number."""
        return [trial for _, trial in sorted(self._trials.items()) if not trial.state.is_terminal]

    # What happens to trials

    def start(self, trial: ArmTrial) -> None:
        """A slot has the trial."""
        trial.state = next_trial_state(trial.state, TrialEvent.START)

    def requeue(self, trial: ArmTrial) -> None:
        """The trial waits for a slot again."""
        trial.state = next_trial_state(trial.state, TrialEvent.REQUEUE)

    def observe(self, trial: ArmTrial, step: int, metrics: Mapping[str, float]) -> None:
        """Enter a report with a step that is new."""
        assert step > trial.last_step, f"trial {trial.number} stands at step {trial.last_step}: got {step}"
        value = self.objective(metrics)
        trial.last_step, trial.values[step], trial.further = step, value, self._further(metrics)
        self._see(value)
        if trial.is_searched:
            self._study.report(trial.point, trial.seed_index, step, value)

    def charge(self, trial: ArmTrial, seconds: float) -> None:
        """Count device time that a trial has used."""
        trial.device_seconds += seconds
        self.device_seconds += seconds

    @property
    def lets_wait(self) -> bool:
        """Whether a trial may be held at a rung, and so may leave a slot before it is decided on."""
        return self._stopping is not None and self._specification.search.deterministic

    def judge(self, trials: Sequence[ArmTrial]) -> dict[ArmTrial, tuple[Fate, str]]:
        """Decide what becomes of trials that have reported, and why; asking again is harmless.

        All of them enter their rungs before any is judged.
        """
        fates: dict[ArmTrial, tuple[Fate, str]] = {}
        at_rung: dict[int, list[ArmTrial]] = {}
        for trial in trials:
            step = trial.last_step
            if step >= self._specification.task.steps:
                fates[trial] = Fate.COMPLETE, f"step {step} is its last"
            elif self._stopping is None or not trial.is_searched or step not in self._rungs:
                fates[trial] = Fate.CONTINUE, ""
            else:
                at_rung.setdefault(step, []).append(trial)
        for step, rivals in at_rung.items():
            assert self._stopping is not None
            decisions = self._stopping.submit(step, [(each.number, each.values[step]) for each in rivals])
            fates |= {each: _fate(decisions[each.number]) for each in rivals}
        return fates

    def end(self, trial: ArmTrial, event: TrialEvent) -> None:
        """The trial has ended."""
        trial.state = next_trial_state(trial.state, event)
        if not trial.is_searched:
            return
        value = trial.values.get(trial.last_step)
        self._study.finish(trial.point, trial.seed_index, trial.state, value, trial.further)
        if self._stopping is not None:
            self._stopping.end(trial.number, trial.state)

    def missing(self, metrics: Mapping[str, float]) -> list[str]:
        """Name the objectives that a report lacks."""
        return [each.metric for each in self._specification.objectives if each.metric not in metrics]

    def objective(self, metrics: Mapping[str, float]) -> float:
        """Pick the objective out of a report."""
        return metrics[self._specification.objective.metric]

    def _see(self, value: float) -> None:
        if math.isfinite(value):
            pick = min if self._specification.objective.mode == "minimize" else max
            self.best = value if self.best is None else pick(self.best, value)

    def _further(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Pick the further objectives out of a report."""
        return tuple(metrics[objective.metric] for objective in self._specification.objectives[1:])

    # Rebuilding

    def restore(self, trials: Sequence[TrialRecord], observations: Sequence[Observation]) -> list[ArmTrial]:
        """Take over what the ledger knows of the arm's trials.

        Args:
            trials: The arm's.
            observations: Those of its trials.

        Returns:
            Trials that had to be made: a crash in the middle of writing a new point down may lose some of its seeds.
        """
        values: dict[int, dict[int, float]] = {trial.number: {} for trial in trials}
        further: dict[tuple[int, int], tuple[float, ...]] = {}
        for observation in observations:
            values[observation.trial][observation.step] = value = self.objective(observation.metrics)
            self._see(value)
            further[observation.trial, observation.step] = self._further(observation.metrics)
        points: dict[int, tuple[Point, dict[int, SeedHistory]]] = {}
        fixed = self._specification.arms[self.index].fixed
        for trial in trials:
            trial = replace(trial, config={**fixed, **trial.config})  # an older release may have named fewer
            self._trials[trial.number] = known = restored(
                self, trial, values[trial.number], further.get((trial.number, trial.last_step), ())
            )
            self.device_seconds += trial.device_seconds
            if trial.phase is Phase.SEARCH:
                point = Point.from_ask(trial.point, trial.config, trial.ask)
                points.setdefault(trial.point, (point, {}))[1][trial.seed_index] = history_of(known)
        self._study.restore(points.values())
        if self._stopping is not None:
            searched = [trial for trial in trials if trial.phase is Phase.SEARCH]
            ended = {trial.number: trial.state for trial in searched if trial.state.is_terminal}
            self._stopping.restore({trial.number: values[trial.number] for trial in searched}, ended=ended)
        wanted = [self._trial(point, index) for point, _ in points.values() for index in range(self._num_seeds)]
        return [self._enter(trial) for trial in wanted if trial.number not in self._trials]

    def _enter(self, trial: ArmTrial) -> ArmTrial:
        """Let a new trial take part."""
        self._trials[trial.number] = trial
        if self._stopping is not None and trial.is_searched:
            self._stopping.begin(trial.number)
        return trial

    def _trial(self, point: Point, seed_index: int) -> ArmTrial:
        number = naming.trial_number(
            arm=self.index,
            point=point.index,
            seed_index=seed_index,
            num_arms=len(self._specification.arms),
            seeds=self._num_seeds,
        )
        return ArmTrial(self, number, point.index, seed_index, config=point.config, ask=point.ask)


def _fate(decision: RungDecision) -> tuple[Fate, str]:
    match decision.outcome:
        case RungOutcome.KEEP:
            return Fate.CONTINUE, decision.reason
        case RungOutcome.STOP:
            return Fate.STOP, decision.reason
        case RungOutcome.WAIT:
            return Fate.WAIT, decision.reason
        case _:
            assert_never(decision.outcome)


def make_arms(specification: Specification) -> list[Arm]:
    """Make the arms of a campaign."""
    return [Arm(specification, index) for index in range(len(specification.arms))]


def _stopping_rule(specification: Specification) -> StoppingRule | None:
    point_of = partial(naming.point_index, num_arms=len(specification.arms), seeds=specification.search.seeds)
    rule = specification.stopping_rule(point_of=point_of)
    return None if rule is None else rule.make()
