"""How many trials of a structure to train together: found out by trying, on copies of one trial that never move.

One trial alone is timed in the solo engine; a long step ends the matter. Then 2, 4, 8 ... are timed in the population
engine, each in turns with the one alone, for the pace of a shared machine changes from second to second. They go on as
long as they gain 1.1 times the best before (one doubling may fail that, two in a row end it: fusing has a cost of its
own, which few trials may not carry), memory allows, and the time set aside for trying lasts. The copies have a learning
rate of zero, so none can diverge. A plan of one is a good answer where one is fastest.

Memory is that of one more trial, measured between one and two on CUDA; on a CPU, where nothing tells a peak, it is the
bytes of weights, gradient, update, optimizer state and what the backward pass keeps. At most 80 % of it is planned for.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from spectune.optimizers import build_optimizer
from spectune.optimizers.catalog import SPECTRAL_CLASSES
from spectune.trainers.engines.fusibility import fusion_problem
from spectune.trainers.engines.population import Population
from spectune.trainers.engines.solo import SoloTrial
from spectune.trainers.engines.structure import known_bound
from spectune.trainers.schedules import Schedule
from spectune.trainers.seeds import generator_for
from spectune.trainers.setting import PRECISIONS, TrialSetting
from spectune.trainers.tasks.task import place

GAIN = 1.1
"""What a doubling must gain per trial to count."""
PATIENCE = 2
"""Doublings in a row that may fail to."""
LONG_STEP_SECONDS = 0.2
"""A step of one trial alone above which nothing is tried: it is arithmetic, which fusing does not save."""
MEMORY_SHARE = 0.8
TRY_SHARE = 0.04
"""For all measurements together, of what as many trials as are asked for would take one by one."""
TRY_SECONDS = (1.0, 10.0)
"""The least and the most for them, whatever the share."""
ROUNDS = (3, 9)
"""Of one alone and a number together, in turns: the least, and the most where steps are short."""
ROUNDS_SHARE = 0.08
"""Of the time set aside, for the rounds of a number; the least are taken whatever they cost."""
_MOST_STEPS = 5
_STRETCH_SECONDS = 0.02
_ENDLESS = 10**6


@dataclass(frozen=True)
class Plan:
    """How many trials to train together, and why.

    Attributes:
        num_members: So many.
        why: A sentence.
        seconds: Of a step for each trial, by the number of trials measured, at the pace of the one alone; empty where
            nothing was.
        member_bytes: Memory of one more trial, None where nothing was measured.
    """

    num_members: int
    why: str
    seconds: Mapping[int, float] = dataclasses.field(default_factory=dict)
    member_bytes: int | None = None

    @property
    def gain(self) -> float:
        """How many times faster a trial's step is predicted to be than alone."""
        return self.seconds[1] / self.seconds[self.num_members] if self.num_members in self.seconds else 1.0

    def document(self) -> dict[str, Any]:
        """Return plain values, for the ledger."""
        seconds = {str(number): each for number, each in self.seconds.items()}
        return {
            "members": self.num_members,
            "why": self.why,
            "predicted_gain": self.gain,
            "seconds_per_member_step": seconds,
            "member_bytes": self.member_bytes,
        }

    def __str__(self) -> str:
        together = "one trial at a time" if self.num_members == 1 else f"{self.num_members} trials together"
        return f"{together}, predicted {self.gain:.1f} times the throughput of one alone: {self.why}"


def make_plan(setting: TrialSetting, *, most: int, clock: Callable[[], float] = time.perf_counter) -> Plan:
    """Find out how many trials like this one are best trained together.

    Args:
        setting: The pattern; its numbers do not matter, its structure does.
        most: No more than these.
        clock: Seconds.

    Raises:
        ValueError: `most` is below one.
        TaskOptionError: The task cannot be trained as asked.
    """
    if most < 1:
        raise ValueError(f"a plan is for at least one trial: got {most}")
    bound = known_bound(setting)
    limit = most if bound is None else min(most, bound)
    if limit == 1:
        return Plan(1, "no more are asked for" if most == 1 else "memory was found to bear no more")
    still = _still(setting)
    alone = _Stepper(SoloTrial(still).advance, setting.device, clock)
    seconds = min(alone.seconds(1), alone.seconds(1))  # the first one warms up
    if seconds > LONG_STEP_SECONDS:  # before anything is copied: a model this large may not fit twice
        return Plan(
            1, f"a step of one alone takes {seconds:.2g} s, more than {LONG_STEP_SECONDS:g} s: it fills its device"
        )
    problem = fusion_problem(setting.task)
    if problem is not None:
        return Plan(1, problem)
    least, at_most = TRY_SECONDS
    return _measured(still, alone, limit, min(max(TRY_SHARE * seconds * setting.steps * most, least), at_most))


def _measured(setting: TrialSetting, alone: _Stepper, limit: int, try_seconds: float) -> Plan:
    clock = alone.clock
    began, last_seconds = clock(), 0.0
    member_bytes = _member_bytes(setting)
    bearable = max(int(MEMORY_SHARE * _free_bytes(setting.device) / max(member_bytes, 1)), 1)
    gains, alone_seconds = {1: 1.0}, alone.seconds(alone.stretch())
    best, failed, number, why = 1, 0, 1, ""
    while not why:
        number = min(2 * number, limit)
        if number > bearable:
            why = f"{number} would not fit into {MEMORY_SHARE:.0%} of the memory that is free"
        elif number > 2 and clock() - began + 2 * last_seconds > try_seconds:
            why = f"trying {number} would take more than the {try_seconds:.2g} s set aside"
        else:
            number_began = clock()
            together = _Stepper(_together(setting, number), setting.device, clock)
            one, other = _in_turns(alone, together, ROUNDS_SHARE * try_seconds)
            gains[number] = number * one / other
            alone_seconds, last_seconds = min(alone_seconds, one), clock() - number_began
            is_gain = gains[number] >= GAIN * gains[best] and known_bound(setting) is None
            failed = 0 if is_gain else failed + 1
            best = best if failed else number
            why = _end(setting, number, limit, failed)
    return Plan(best, why, {each: alone_seconds / gain for each, gain in gains.items()}, member_bytes)


class _Stepper:
    """Trials that take steps, timed.

    Args:
        advance: Trains them until a step.
        device: Theirs.
        clock: Seconds.
    """

    def __init__(self, advance: Callable[[int], Any], device: str, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._advance = advance
        self._device = device
        self._step = 0

    def seconds(self, num_steps: int) -> float:
        """Take steps; give the seconds of one."""
        _wait(self._device)
        started = self.clock()
        self._step += num_steps
        self._advance(self._step)
        _wait(self._device)
        return (self.clock() - started) / num_steps

    def stretch(self) -> int:
        """Return how many steps to time at once: few of long ones, which are their own measure."""
        seconds = self.seconds(1)
        return min(max(int(_STRETCH_SECONDS / max(seconds, 1e-9)), 1), _MOST_STEPS)


def _in_turns(alone: _Stepper, together: _Stepper, seconds: float) -> tuple[float, float]:
    """Time both in turns; give the seconds of a step of each, when nothing else held it up."""
    together.seconds(2)  # the first ones make what later ones use
    lengths, began = (alone.stretch(), together.stretch()), alone.clock()
    pairs: list[tuple[float, float]] = []
    least, at_most = ROUNDS
    while len(pairs) < least or (len(pairs) < at_most and alone.clock() - began < seconds):
        pairs.append((alone.seconds(lengths[0]), together.seconds(lengths[1])))
    return min(one for one, _ in pairs), min(other for _, other in pairs)


def _end(setting: TrialSetting, number: int, limit: int, failed: int) -> str:
    """Return why no more are tried after this number; empty where more are."""
    if known_bound(setting) is not None:
        return "memory bears no more"
    if failed == PATIENCE:
        return f"more gain less than {GAIN - 1:.0%} a doubling"
    if number == limit:
        return "the most that are asked for" if not failed else f"more gain less than {GAIN - 1:.0%} a doubling"
    return ""


def _still(setting: TrialSetting) -> TrialSetting:
    """Return a trial of the same structure that goes nowhere, for as long as one likes."""
    hyperparameters = {**setting.hyperparameters, "lr": 0.0}
    if setting.optimizer in SPECTRAL_CLASSES and hyperparameters.get("adamw_lr_ratio") is None:
        hyperparameters["adamw_lr"] = 0.0  # given or by default, it is no multiple of the other
    return dataclasses.replace(setting, hyperparameters=hyperparameters, schedule=Schedule(), steps=_ENDLESS)


def _together(setting: TrialSetting, number: int) -> Callable[[int], Any]:
    population = Population()
    for trial in range(number):
        population.admit(trial, dataclasses.replace(setting, seed=setting.seed + trial))
    return lambda until_step: population.advance(dict.fromkeys(range(number), until_step))


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _member_bytes(setting: TrialSetting) -> int:
    if torch.device(setting.device).type != "cuda":
        return _counted_bytes(setting)
    peaks = []
    for number in (1, 2):
        torch.cuda.reset_peak_memory_stats(setting.device)
        before = torch.cuda.memory_allocated(setting.device)
        _together(setting, number)(1)
        peaks.append(torch.cuda.max_memory_allocated(setting.device) - before)
    return peaks[1] - peaks[0]


def _counted_bytes(setting: TrialSetting) -> int:
    """Count what one trial needs in a step: weights, gradient, update, optimizer state, and what backward keeps."""
    model = setting.task.build(generator_for("model", setting.seed)).to(dtype=PRECISIONS[setting.precision])
    optimizer = build_optimizer(model, setting.optimizer, **setting.hyperparameters)
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        loss = setting.task.loss(model, place(setting.task.batch(0, setting.data_seed), model))
    loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
    optimizer.step()
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    states = [entry for state in optimizer.state.values() for entry in state.values() if isinstance(entry, Tensor)]
    return 3 * weights + sum(entry.numel() * entry.element_size() for entry in states) + sum(kept.values())


def _free_bytes(device: str) -> int:
    if torch.device(device).type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        ours = torch.cuda.get_per_process_memory_fraction(device) * total - torch.cuda.memory_reserved(device)
        return max(0, min(free, int(ours)))
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
