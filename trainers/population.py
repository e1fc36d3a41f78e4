"""The population engine: many trials of one structure trained as one.

Trial k is lane k of every tensor: weights W_k, momenta, hyperparameters as vectors. A step is

    (L_k, G_k) = vmap(value and gradient)(W, batch)      one call of the model for all lanes
    U, S       = rule.update(G, S, hyperparameters)      one call of the optimizer's stages for all lanes and shapes
    W_k        <- (1 − γ_k λ_k) W_k − γ_k U_k

and means what the solo engine means: the rules, the schedules, the definition of divergence and the reports are the
same. Lanes see each other nowhere, so what one lane holds changes no bit of another. A lane that has reached its target
or diverged leaves the work at once; one that is freed is filled by `admit`.

An update is computed whole before any weight is written. A step that runs out of memory has therefore changed nothing:
the lanes are then trained in two halves, one after the other, from where they stand.
"""

from __future__ import annotations

import dataclasses
import math
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from optimizers import OPTIMIZERS, build_optimizer
from trainers.checkpoints import State, copied
from trainers.divergence import Watch
from trainers.fusibility import LossModule
from trainers.gradient_noise import noise_of
from trainers.lane_batches import LaneBatches
from trainers.lane_rates import LaneRates
from trainers.lane_stack import LaneStack, bundles_of
from trainers.seeds import generator_for
from trainers.setting import PRECISIONS, TrialSetting
from trainers.solo import INSPECT_EVERY, Outcome, never
from trainers.step_timing import StepTimer, StepTimes
from trainers.tasks.task import TRAINING_METRICS, Batch

_ASK_EVERY_SECONDS = 1.0
_most_lanes: dict[Hashable, int] = {}
"""How many lanes of a task fit into a device's memory, where more were tried in this process and did not."""


@dataclass
class _Member:
    """A trial: what it is and where it stands; its numbers are in the stack."""

    trial: int
    setting: TrialSetting
    groups: list[dict[str, Any]]  # as in the state dict of its optimizer
    watch: Watch
    step: int = 0
    interruption: str = ""
    times: StepTimes = dataclasses.field(default_factory=StepTimes)
    is_alone: bool = True  # in all steps since its last report

    @property
    def reason(self) -> str:
        return self.watch.reason or self.interruption

    def factor(self) -> float:
        """Give the schedule's factor at the last step taken."""
        return self.setting.schedule.factor(max(self.step - 1, 0), self.setting.steps)

    def rate(self) -> float:
        """Give the learning rate of the last step taken."""
        return float(self.groups[0]["initial_lr"]) * self.factor()


class _OfTask(nn.Module):
    """A function of a task and a model as a module, whose parameters `functional_call` can replace."""

    def __init__(self, setting: TrialSetting, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._task: Any = setting.task


class _Measure(_OfTask):
    def forward(self, seed: int) -> dict[str, Tensor]:
        measured: dict[str, Tensor] = self._task.measure(self.model, seed)
        return measured


class _Evaluate(_OfTask):
    def forward(self, seed: int) -> dict[str, float]:
        metrics: dict[str, float] = self._task.evaluate(self.model, seed)
        return metrics


def structure_of(setting: TrialSetting) -> Hashable:
    """Give what trials must have in common to train together: all but seeds, steps and elementwise hyperparameters."""
    entry, given = OPTIMIZERS.get(setting.optimizer), setting.hyperparameters
    table = {} if entry is None else entry.hyperparameters
    fixed = tuple((name, repr(given.get(name))) for name, each in table.items() if not each.elementwise)
    task = (setting.task.name, repr(setting.task))
    return task, setting.optimizer, fixed, setting.precision, setting.device


class Population:
    """Trials in training together.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._members: list[_Member] = []
        self._stack: LaneStack | None = None
        self._joining: list[LaneStack] = []
        self._loss: LossModule | None = None
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
        setting.task.check()
        model = setting.task.build(generator_for("model", setting.seed))
        model.to(setting.device, PRECISIONS[setting.precision])
        optimizer = build_optimizer(model, setting.optimizer, **setting.hyperparameters)
        lane = LaneStack.of_model(bundles_of(model, optimizer), model)
        member = _Member(trial, setting, optimizer.state_dict()["param_groups"], Watch(float(lane.rms()[0])))
        if state is not None:
            _restore(member, lane, state)
        if self._loss is None:
            self._loss = LossModule(setting.task, model)
            self._batches = LaneBatches(setting.task, model)
            self._timer = StepTimer(torch.device(setting.device), self._clock)
        self._members.append(member)
        self._joining.append(lane)

    def evict(self, trials: Sequence[int]) -> None:
        """Drop trials at once: from here on the work is that of those who stay."""
        kept = [lane for lane, member in enumerate(self._members) if member.trial not in trials]
        stack = self._joined() if kept else None
        self._stack = stack.select(kept) if stack is not None and len(kept) < len(self._members) else stack
        self._joining = []
        self._members = [self._members[lane] for lane in kept]
        if not kept:
            self._loss = None  # the next may be of another structure

    # Training

    def advance(self, targets: Mapping[int, int], *, should_stop: Callable[[], bool] = never) -> dict[int, Outcome]:
        """Train each of these trials until it has taken so many steps in all; the others wait.

        Args:
            targets: Absolute steps, by trial; nothing happens to one that has taken them already.
            should_stop: Asked between steps, at most once a second; True ends the call early.

        Raises:
            ValueError: A target lies beyond its trial's end.
        """
        lanes = [self._lane(trial) for trial in targets]
        for lane in lanes:
            member = self._members[lane]
            if targets[member.trial] > member.setting.steps:
                text = f"trial {member.trial} of {member.setting.steps} steps cannot advance further"
                raise ValueError(f"{text}: got {targets[member.trial]}")
            member.interruption = ""
        waiting = [lane for lane in lanes if self._is_open(lane, targets)]
        while waiting:
            some = waiting[: self._most()]
            waiting = waiting[len(some) :] + self._advance_some(some, targets, should_stop)
        return {trial: self._outcome(self._members[self._lane(trial)]) for trial in targets}

    def _advance_some(self, lanes: list[int], targets: Mapping[int, int], should_stop: Callable[[], bool]) -> list[int]:
        """Train lanes to their targets; give those that are left because they did not fit into memory together."""
        while lanes:
            everything = self._joined()
            is_part = len(lanes) < everything.num_lanes
            work = everything.select(lanes) if is_part else everything
            try:
                self._stretch(work, [self._members[lane] for lane in lanes], targets, should_stop)
            except torch.OutOfMemoryError:
                if len(lanes) == 1:
                    raise
                _most_lanes[self._memory_key()] = len(lanes) // 2
                return lanes
            finally:
                if is_part:
                    everything.write(lanes, work)
            lanes = [lane for lane in lanes if self._is_open(lane, targets)]
        return []

    def _stretch(
        self, work: LaneStack, members: list[_Member], targets: Mapping[int, int], should_stop: Callable[[], bool]
    ) -> None:
        """Train lanes side by side until the first of them reaches its target, diverges or is interrupted."""
        started, first_steps = self._clock(), [member.step for member in members]
        num_steps, taken = min(targets[member.trial] - member.step for member in members), 0
        rates = LaneRates(work, [member.setting for member in members], [member.groups for member in members])
        losses: list[Tensor] = []
        try:
            while taken < num_steps and not any(member.reason for member in members):
                if self._is_asked(should_stop):
                    self._read_losses(members, losses)
                    self._interrupt(work, members)
                    continue
                losses.append(self._train_step(work, members, rates))
                taken += 1
                for member, first in zip(members, first_steps, strict=True):
                    member.step = first + taken
                if any(self._is_due(member, targets) for member in members):
                    self._read_losses(members, losses)
                    self._check_weights(work, [member if self._is_due(member, targets) else None for member in members])
        finally:
            self._read_losses(members, losses)
            self._share_times(members, self._clock() - started, taken)

    def _share_times(self, members: list[_Member], seconds: float, num_steps: int) -> None:
        """Charge each lane its share of a stretch."""
        sampled, self._timer.times = self._timer.times, StepTimes()
        for member in members:
            member.times.seconds += seconds / len(members)
            member.times.steps += num_steps
            member.times.sampled_seconds += sampled.sampled_seconds / len(members)
            member.times.sampled_optimizer_seconds += sampled.sampled_optimizer_seconds / len(members)
            member.is_alone = member.is_alone and len(members) == 1

    def _train_step(self, work: LaneStack, members: list[_Member], rates: LaneRates) -> Tensor:
        """Take one step of every lane; give the losses, [lanes]. Nothing has changed if it raises."""
        steps = [member.step for member in members]
        started = self._timer.start_step(max(steps))
        gradients, losses = self._gradients(work, members, steps)
        optimizer_started = self._timer.start_optimizer()
        with torch.no_grad():
            updates = []
            self._disturb(gradients, members, steps)
            for bundle, state in zip(work.bundles, work.states, strict=True):
                stacked = torch.stack([gradients[name] for name in bundle.names])
                updates.append(bundle.rule.update(stacked, state, rates.hyperparameters(bundle)))
            for index, (bundle, (update, state)) in enumerate(zip(work.bundles, updates, strict=True)):
                rate, decay = rates.at(bundle, steps)
                if decay is not None:
                    work.weights[index].mul_(decay)
                work.weights[index].addcmul_(update, rate, value=-1)
                work.states[index] = state
        self._timer.end_step(started, optimizer_started)
        return losses.detach()

    def _gradients(self, work: LaneStack, members: list[_Member], steps: list[int]) -> tuple[dict[str, Tensor], Tensor]:
        assert self._loss is not None
        loss = self._loss
        batch, is_shared = self._batches.at([member.setting for member in members], steps)

        def of_lane(parameters: dict[str, Tensor], lane_batch: Batch) -> Tensor:
            value: Tensor = functional_call(loss, parameters, lane_batch)
            return value

        leaves = {name: each.detach().requires_grad_() for name, each in work.parameters().items()}
        with self._autocast():
            losses = vmap(of_lane, in_dims=(0, None if is_shared else 0))(_prefixed(leaves), batch)
        # No lane reads another's, so one backward pass of the sum gives each lane its own gradient.
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, gradients, strict=True)), losses

    @staticmethod
    def _disturb(gradients: dict[str, Tensor], members: list[_Member], steps: list[int]) -> None:
        """Add the noise that the task asks for, each lane's own, in place of the gradients."""
        noise = noise_of(members[0].setting.task)
        seeds = [member.setting.data_seed for member in members]
        for name, gradient in gradients.items() if noise is not None else ():
            assert noise is not None
            gradients[name] = noise.disturb_stack(name, gradient, seeds=seeds, steps=steps)

    # Watching

    @staticmethod
    def _is_due(member: _Member, targets: Mapping[int, int]) -> bool:
        """Whether the solo engine would look at its numbers now."""
        return member.step % INSPECT_EVERY == 0 or member.step == targets[member.trial]

    @staticmethod
    def _read_losses(members: list[_Member], losses: list[Tensor]) -> None:
        """Read the losses of the steps since they were read before."""
        read = torch.stack(losses).double().cpu().tolist() if losses else []
        losses.clear()
        for lane, member in enumerate(members):
            ended_at = member.watch.enter_losses([row[lane] for row in read], member.step)
            member.step = member.step if ended_at is None else ended_at

    @staticmethod
    def _check_weights(work: LaneStack, members: Sequence[_Member | None]) -> None:
        """Compare the weights of lanes with their bounds; None for a lane whose turn it is not."""
        for member, root in zip(members, work.rms().cpu().tolist(), strict=True):
            if member is not None and not member.watch.reason:
                member.watch.enter_rms(root, member.step)

    @staticmethod
    def _interrupt(work: LaneStack, members: list[_Member]) -> None:
        """Interrupt the lanes whose numbers are finite; the others go on to the inspection that says what they are."""
        for member, root in zip(members, work.rms().cpu().tolist(), strict=True):
            if not member.watch.reason and math.isfinite(root):
                member.interruption = f"asked to stop after step {member.step}"

    def _is_asked(self, should_stop: Callable[[], bool]) -> bool:
        now = self._clock()
        if now - self._asked_at < _ASK_EVERY_SECONDS:
            return False
        self._asked_at = now
        return should_stop()

    def _is_open(self, lane: int, targets: Mapping[int, int]) -> bool:
        member = self._members[lane]
        return member.step < targets[member.trial] and not member.reason

    @staticmethod
    def _outcome(member: _Member) -> Outcome:
        if member.watch.reason:
            return Outcome.DIVERGED
        return Outcome.INTERRUPTED if member.interruption else Outcome.REACHED

    # Telling

    def step(self, trial: int) -> int:
        """Tell how many steps a trial has taken; where it has diverged, up to and including the one that ended it."""
        return self._members[self._lane(trial)].step

    def reason(self, trial: int) -> str:
        """Tell why the last `advance` did not reach a trial's step; else empty."""
        return self._members[self._lane(trial)].reason

    def report(self, trials: Sequence[int]) -> dict[int, dict[str, float] | str]:
        """Evaluate trials now, and sum up their steps since their reports before, as `SoloTrial.report` does.

        Times are a lane's share of what the population took; `timing_valid` is 0 where it shared.

        Returns:
            The metrics of each trial; the traceback where its evaluation raised.
        """
        lanes = {trial: self._lane(trial) for trial in trials}
        evaluated = self._evaluated([lane for lane in lanes.values() if not self._members[lane].watch.reason])
        return {trial: self._report(self._members[lane], evaluated.get(lane)) for trial, lane in lanes.items()}

    @staticmethod
    def _report(member: _Member, evaluated: dict[str, float] | str | None) -> dict[str, float] | str:
        if isinstance(evaluated, str):
            return evaluated
        setting = member.setting
        metrics = {"lr": member.rate(), "timing_valid": float(member.is_alone)}
        metrics |= member.times.metrics(setting.task.items_per_step)
        if member.watch.loss_count:
            metrics["loss"] = member.watch.loss_sum / member.watch.loss_count
        nowhere = {name: math.nan for name in setting.task.metrics if name not in TRAINING_METRICS}
        metrics |= nowhere if evaluated is None else evaluated
        member.watch.forget_losses()
        member.times, member.is_alone = StepTimes(), True
        return metrics

    def _evaluated(self, lanes: list[int]) -> dict[int, dict[str, float] | str]:
        """Evaluate lanes, together those that share data where the task can measure without leaving tensors."""
        found: dict[int, dict[str, float] | str] = {}
        of_seed: dict[int, list[int]] = {}
        for lane in lanes:
            of_seed.setdefault(self._members[lane].setting.data_seed, []).append(lane)
        for seed, some in of_seed.items():
            try:
                found |= self._measured(some, seed)
            except Exception:  # of one of them, or the task measures in plain numbers: each for itself
                found |= {lane: self._evaluated_alone(lane, seed) for lane in some}
        return found

    @torch.no_grad()
    def _measured(self, lanes: list[int], seed: int) -> dict[int, dict[str, float] | str]:
        assert self._loss is not None
        probe = _Measure(self._members[0].setting, self._loss.model)
        everything = self._joined()
        some = everything if len(lanes) == everything.num_lanes else everything.select(lanes)

        def of_lane(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
            measured: dict[str, Tensor] = functional_call(probe, _prefixed(parameters), (seed,))
            return measured

        with _in_evaluation(self._loss.model), self._autocast():
            measured = vmap(of_lane)(some.parameters())
        columns = {name: values.double().cpu().tolist() for name, values in measured.items()}
        return {lane: {name: values[row] for name, values in columns.items()} for row, lane in enumerate(lanes)}

    @torch.no_grad()
    def _evaluated_alone(self, lane: int, seed: int) -> dict[str, float] | str:
        assert self._loss is not None
        probe = _Evaluate(self._members[lane].setting, self._loss.model)
        parameters = {name: stack[lane] for name, stack in self._joined().parameters().items()}
        try:
            with _in_evaluation(self._loss.model), self._autocast():
                metrics: dict[str, float] = functional_call(probe, _prefixed(parameters), (seed,))
        except Exception:
            return traceback.format_exc()
        return metrics

    def state(self, trial: int) -> State:
        """Copy everything a trial needs to go on, as the solo engine writes it: either engine can restore it."""
        lane = self._lane(trial)
        member, stack = self._members[lane], self._joined()
        assert self._loss is not None
        weights = stack.lane_weights(lane)
        name_of = {id(parameter): name for name, parameter in self._loss.model.named_parameters()}
        groups = [{**group, "lr": group["initial_lr"] * member.factor()} for group in member.groups]
        return {
            "setting": member.setting.identity(),
            "step": member.step,
            "model": {
                key: weights[name_of[id(entry)]] if id(entry) in name_of else copied(entry)
                for key, entry in self._loss.model.state_dict(keep_vars=True).items()
            },
            "optimizer": {"state": stack.lane_state(lane), "param_groups": copied(groups)},
            "watch": member.watch.state(),
            "times": dataclasses.asdict(member.times),
        }

    # Inside

    def _lane(self, trial: int) -> int:
        for lane, member in enumerate(self._members):
            if member.trial == trial:
                return lane
        raise ValueError(f"no such trial in the population: got {trial}")

    def _joined(self) -> LaneStack:
        """Give the stack, with the lanes that have been admitted since."""
        if self._joining:
            self._stack = LaneStack.joined([*([] if self._stack is None else [self._stack]), *self._joining])
            self._joining = []
        assert self._stack is not None, "an empty population has no stack"
        return self._stack

    def _most(self) -> int:
        return _most_lanes.get(self._memory_key(), len(self._members))

    def _memory_key(self) -> Hashable:
        return structure_of(self._members[0].setting)

    def _autocast(self) -> AbstractContextManager[Any]:
        setting = self._members[0].setting
        if setting.precision == "bf16":
            return torch.autocast(torch.device(setting.device).type, dtype=torch.bfloat16)
        return nullcontext()


def known_bound(setting: TrialSetting) -> int | None:
    """Tell how many lanes like this trial fit into memory, where more did not; None where nothing is known."""
    return _most_lanes.get(structure_of(setting))


def _restore(member: _Member, lane: LaneStack, state: State) -> None:
    member.setting.refuse_other(state["setting"])
    lane.load_lane(0, state["model"], state["optimizer"]["state"])
    member.watch.restore(state["watch"])
    member.times = StepTimes(**state["times"])
    member.step = state["step"]


def _prefixed(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in parameters.items()}


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    model.eval()
    try:
        yield
    finally:
        model.train()
