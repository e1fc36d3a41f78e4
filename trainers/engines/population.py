"""The population engine: many trials of one structure trained as one.

Trial k is lane k of every tensor: weights W_k, momenta, hyperparameters as vectors. A step (`lane_step`) means
what the solo engine means: the rules, the schedules, the definition of divergence and the reports are the same. Lanes
see each other nowhere, so what one lane holds changes no bit of another. A lane that has reached its target or diverged
leaves the work at once; one that is freed is filled by `admit`.

A step that runs out of memory has changed nothing: the lanes are then trained in two halves, one after the other, from
where they stand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from spectune.optimizers import build_optimizer
from spectune.trainers.checkpoints import State, copied
from spectune.trainers.engines.divergence import Watch
from spectune.trainers.engines.fusibility import LossModule
from spectune.trainers.engines.lane_evaluation import Evaluated, LaneEvaluation
from spectune.trainers.engines.lane_rates import LaneRates
from spectune.trainers.engines.lane_stack import LaneStack, bundles_of
from spectune.trainers.engines.lane_step import LaneStep
from spectune.trainers.engines.member import Member
from spectune.trainers.engines.solo import ASK_EVERY_SECONDS, INSPECT_EVERY, Outcome, never
from spectune.trainers.engines.spectra import spectra_of_lanes
from spectune.trainers.engines.step_timing import StepTimer, StepTimes
from spectune.trainers.engines.structure import is_out_of_memory, known_bound, remember_bound, structure_of
from spectune.trainers.seeds import generator_for
from spectune.trainers.setting import PRECISIONS, TrialSetting
from spectune.trainers.user_code import failure_text


class Population:
    """Trials in training together.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._members: list[Member] = []
        self._stack: LaneStack | None = None
        self._joining: list[LaneStack] = []
        self._asked_at = clock()

    # Membership

    @property
    def trials(self) -> Sequence[int]:
        """The numbers of its trials, lane by lane."""
        return tuple(member.trial for member in self._members)

    @property
    def num_bytes(self) -> int:
        """What its weights and optimizer states hold."""
        return self._joined().num_bytes if self._members else 0

    def admit(self, trial: int, setting: TrialSetting, state: State | None = None) -> None:
        """Take a trial in, at its start or from a state of either engine.

        Raises:
            TaskOptionError: The task cannot be trained as asked.
            CheckpointError: The state belongs to a trial with another setting.
            ValueError: The optimizer refuses its hyperparameters, or the trial has another structure than the others.
        """
        if self._members and structure_of(setting) != structure_of(self._members[0].setting):
            raise ValueError(f"trial {trial} has another structure than the population: got {structure_of(setting)}")
        if not self._members:
            setting.task.check()  # that of the others is equal
        model = setting.task.build(generator_for("model", setting.seed))
        model.to(setting.device, PRECISIONS[setting.precision])
        optimizer = build_optimizer(model, setting.optimizer, **setting.hyperparameters)
        lane = LaneStack.of_model(bundles_of(model, optimizer), model)
        member = Member(trial, setting, optimizer.state_dict()["param_groups"], Watch(float(lane.rms()[0])))
        if state is not None:
            member.restore(lane, state)
        if not self._members:  # the first of a structure brings what all of it share
            self._model = model
            self._timer = StepTimer(torch.device(setting.device), self._clock)
            self._step = LaneStep(setting, LossModule(setting.task, model), self._timer)
            self._evaluation = LaneEvaluation(setting, model)
        self._members.append(member)
        self._joining.append(lane)

    def evict(self, trials: Sequence[int]) -> None:
        """Drop trials at once: from here on the work is that of those who stay."""
        kept = [lane for lane, member in enumerate(self._members) if member.trial not in trials]
        stack = self._joined() if kept else None
        self._stack = stack.select(kept) if stack is not None and len(kept) < len(self._members) else stack
        self._joining = []
        self._members = [self._members[lane] for lane in kept]

    # Training

    def advance(self, targets: Mapping[int, int], *, should_stop: Callable[[], bool] = never) -> dict[int, Outcome]:
        """Train each of these trials until it has taken so many steps in all; the others wait.

        Args:
            targets: Absolute steps, by trial; nothing happens to one that has taken them already.
            should_stop: Asked between steps, at most once a second; True ends the call early.

        Raises:
            ValueError: A target lies beyond its trial's end.
        """
        lanes = sorted(self._lane(trial) for trial in targets)
        for lane in lanes:
            member = self._members[lane]
            if targets[member.trial] > member.setting.steps:
                text = f"trial {member.trial} of {member.setting.steps} steps cannot advance further"
                raise ValueError(f"{text}: got {targets[member.trial]}")
            member.interruption = ""
        waiting = [lane for lane in lanes if self._is_open(lane, targets)]
        while waiting:
            some = waiting[: known_bound(self._members[0].setting)]
            waiting = waiting[len(some) :] + self._advance_some(some, targets, should_stop)
        return {trial: self._members[self._lane(trial)].outcome for trial in targets}

    def _advance_some(self, lanes: list[int], targets: Mapping[int, int], should_stop: Callable[[], bool]) -> list[int]:
        """Train lanes to their targets; give those that are left because they did not fit into memory together."""
        while lanes:
            everything = self._joined()
            is_part = lanes != list(range(everything.num_lanes))
            work = everything.select(lanes) if is_part else everything
            try:
                self._stretch(work, [self._members[lane] for lane in lanes], targets, should_stop)
            except RuntimeError as error:
                if len(lanes) == 1 or not is_out_of_memory(error):
                    raise
                remember_bound(self._members[0].setting, len(lanes) // 2)
                return lanes
            finally:
                if is_part:
                    everything.write(lanes, work)
            lanes = [lane for lane in lanes if self._is_open(lane, targets)]
        return []

    def _stretch(
        self, work: LaneStack, members: list[Member], targets: Mapping[int, int], should_stop: Callable[[], bool]
    ) -> None:
        """Train lanes side by side until the first of them reaches its target, diverges or is interrupted."""
        started, firsts = self._clock(), [member.step for member in members]
        settings = [member.setting for member in members]
        rates = LaneRates(work, settings, [member.groups for member in members], firsts)
        taken, due = 0, min(member.steps_until_due(targets[member.trial]) for member in members)
        losses: list[Tensor] = []
        try:
            while not any(member.reason or member.step == targets[member.trial] for member in members):
                while taken < due and not self._is_asked(should_stop):
                    rates.go_to(taken)
                    losses.append(self._step.take(work, settings, [first + taken for first in firsts], rates))
                    taken += 1
                self._read_losses(members, losses)
                if taken < due:
                    self._interrupt(work, members)
                else:
                    due += self._inspect(work, members, targets)
        finally:
            self._read_losses(members, losses)
            sampled, self._timer.times = self._timer.times, StepTimes()
            self._share_times(members, sampled, self._clock() - started, taken)

    @staticmethod
    def _share_times(members: list[Member], sampled: StepTimes, seconds: float, num_steps: int) -> None:
        """Charge each lane its share of a stretch."""
        for member in members:
            member.times.seconds += seconds / len(members)
            member.times.steps += num_steps
            member.times.sampled_seconds += sampled.sampled_seconds / len(members)
            member.times.sampled_optimizer_seconds += sampled.sampled_optimizer_seconds / len(members)
            member.is_alone = member.is_alone and len(members) == 1

    # Watching

    @staticmethod
    def _read_losses(members: list[Member], losses: list[Tensor]) -> None:
        """Count the steps whose losses have not been read, and read them."""
        if not losses:
            return
        read = torch.stack(losses, dim=1).double().cpu().tolist()
        for member, mine in zip(members, read, strict=True):
            member.step += len(losses)
            ended_at = member.watch.enter_losses(mine, member.step)
            member.step = member.step if ended_at is None else ended_at
        losses.clear()

    @staticmethod
    def _inspect(work: LaneStack, members: list[Member], targets: Mapping[int, int]) -> int:
        """Compare the weights of the lanes that are due with their bounds; tell how soon the next is."""
        soonest = INSPECT_EVERY
        for member, root in zip(members, work.rms().cpu().tolist(), strict=True):
            target = targets[member.trial]
            is_due = member.step % INSPECT_EVERY == 0 or member.step == target
            if is_due and not member.watch.reason:
                member.watch.enter_rms(root, member.step)
            soonest = min(soonest, member.steps_until_due(target))
        return soonest

    @staticmethod
    def _interrupt(work: LaneStack, members: list[Member]) -> None:
        """Interrupt the lanes whose numbers are finite; the others go on to the inspection that says what they are."""
        for member, root in zip(members, work.rms().cpu().tolist(), strict=True):
            if not member.watch.reason and math.isfinite(root):
                member.interruption = f"asked to stop after step {member.step}"

    def _is_asked(self, should_stop: Callable[[], bool]) -> bool:
        now = self._clock()
        if now - self._asked_at < ASK_EVERY_SECONDS:
            return False
        self._asked_at = now
        return should_stop()

    def _is_open(self, lane: int, targets: Mapping[int, int]) -> bool:
        member = self._members[lane]
        return member.step < targets[member.trial] and not member.reason

    # Telling

    def step(self, trial: int) -> int:
        """Return how many steps a trial has taken; where it has diverged, up to and including the one that ended it."""
        return self._members[self._lane(trial)].step

    def reason(self, trial: int) -> str:
        """Return why the last `advance` did not reach a trial's step; else empty."""
        return self._members[self._lane(trial)].reason

    def report(self, trials: Sequence[int]) -> dict[int, dict[str, float] | str]:
        """Evaluate trials now, and sum up their steps since their reports before, as `SoloTrial.report` does.

        Times are a lane's share of what the population took; `timing_valid` is 0 where it shared.

        Returns:
            The metrics of each trial, or what is recorded of a failure to evaluate it.
        """
        lanes = {trial: self._lane(trial) for trial in trials}
        sound = sorted(lane for lane in lanes.values() if not self._members[lane].watch.reason)
        seeds = {lane: self._members[lane].setting.data_seed for lane in sound}
        steps = {lane: self._members[lane].step for lane in sound}
        evaluated = self._evaluation.evaluate(self._joined(), seeds, steps) if seeds else {}
        spectra = self._spectra(sound)
        reports: dict[int, dict[str, float] | str] = {}
        for trial, lane in lanes.items():
            reports[trial] = self._report(lane, evaluated.get(lane), spectra.get(lane, {}))
        return reports

    def _report(self, lane: int, evaluated: Evaluated | None, spectra: Mapping[str, float]) -> Evaluated:
        try:
            return evaluated if isinstance(evaluated, str) else self._members[lane].report(evaluated, spectra)
        except BaseException as error:  # a user's code can raise anything
            return failure_text(error)

    def _spectra(self, lanes: list[int]) -> dict[int, dict[str, float]]:
        if not lanes:
            return {}
        everything, members = self._joined(), [self._members[lane] for lane in lanes]
        stack = everything if lanes == list(range(everything.num_lanes)) else everything.select(lanes)
        settings, groups = [member.setting for member in members], [member.groups for member in members]
        rates = LaneRates(stack, settings, groups, [member.step for member in members])
        return dict(zip(lanes, spectra_of_lanes(stack, rates), strict=True))

    def state(self, trial: int) -> State:
        """Copy everything a trial needs to go on, as the solo engine writes it: either engine can restore it."""
        lane = self._lane(trial)
        member, stack = self._members[lane], self._joined()
        weights = stack.lane_weights(lane)
        name_of = {id(parameter): name for name, parameter in self._model.named_parameters()}
        return member.state() | {
            "model": {
                key: weights[name_of[id(entry)]] if id(entry) in name_of else copied(entry)
                for key, entry in self._model.state_dict(keep_vars=True).items()
            },
            "optimizer": {"state": stack.lane_state(lane), "param_groups": copied(member.param_groups())},
        }

    # Inside

    def _lane(self, trial: int) -> int:
        for lane, member in enumerate(self._members):
            if member.trial == trial:
                return lane
        raise ValueError(f"no such trial in the population: got {trial}")

    def _joined(self) -> LaneStack:
        """Return the stack, with the lanes that have been admitted since."""
        if self._joining:
            self._stack = LaneStack.joined([*([] if self._stack is None else [self._stack]), *self._joining])
            self._joining = []
        assert self._stack is not None, "an empty population has no stack"
        return self._stack
