"""Fused equals solo, checked where it matters: a step that a trial takes among others, and the same step alone.

    max |W_fused − W_solo| / rms(W_solo)  <=  1e-12 in fp64,  1e-5 in fp32

Exact polar factors answer a tiny singular value with a direction of length one, Newton-Schulz's with hundreds of times
itself, and so amplify rounding: where that bound is exceeded, it is 30 times what the solo engine makes of weights and
gradients moved by rounding (of gradients too: weights that start at zero cannot be moved by a share of themselves).

In bf16 no such number holds: a product that is summed in another order may round to the neighbour, and a polar factor
or Adam's quotient answers a small gradient with a whole step. What correct engines may differ by is therefore measured:
it is what the solo engine's step U makes of weights moved by half the distance of neighbours, which bf16 cannot see,

    ‖U_fused − U_solo‖ / ‖U_solo‖  <=  max(2⁻⁸, 4 ‖U_moved − U_solo‖ / ‖U_solo‖),    W_moved = W (1 ± 2⁻⁹)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from spectune.trainers.checkpoints import State
from spectune.trainers.engines.cohorts import Cohort
from spectune.trainers.engines.solo import Outcome, SoloTrial
from spectune.trainers.engines.structure import structure_of
from spectune.trainers.seeds import generator_for
from spectune.trainers.setting import TrialSetting

TOLERANCES: Final = {"fp64": 1e-12, "fp32": 1e-5, "bf16": 2**-8}
ROUNDING: Final = {"fp64": 1e-15, "fp32": 2**-23, "bf16": 2**-9}
"""By what share of themselves weights are moved at most; in bf16 half the largest distance of neighbours."""
RESPONSES: Final = {"fp64": 30.0, "fp32": 30.0, "bf16": 4.0}
"""In 108 bf16 steps of small transformers under all rules, 1.5 were enough for all but one, which needed 3.0."""
CHECK_EVERY: Final = 16
"""Stretches of a structure between two checks, the first of which is checked."""


@dataclass(frozen=True)
class FusionCheck:
    """What a check found.

    Attributes:
        step: The step taken in both engines.
        deviation: The largest difference of weights, in units of their root mean square; in bf16 the norm of the
            difference, in units of the step's. NaN where a weight is not finite.
        tolerance: What it may be.
    """

    step: int
    deviation: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the engines agree."""
        return self.deviation <= self.tolerance


def check_step(setting: TrialSetting, before: State, after: State) -> FusionCheck:
    """Compare a step that a trial took among others with the same step alone.

    Args:
        setting: The trial's.
        before: Its state, of either engine.
        after: Its state one step later.

    Raises:
        CheckpointError: A state belongs to a trial with another setting.
        ValueError: The trial had no step left.
    """
    precision = setting.precision
    start, expected, found = _weights(before), _weights(_stepped(setting, before)), _weights(after)

    def size(difference: Tensor) -> float:
        if precision == "bf16":
            return _quotient(difference, expected - start)
        return float(difference.abs().max() / expected.square().mean().sqrt())

    deviation, tolerance = size(found - expected), TOLERANCES[precision]
    if deviation > tolerance:
        moved = _moved(before, by=ROUNDING[precision])
        stepped = _stepped(setting, moved, kind=SoloTrial if precision == "bf16" else _RoundedTrial)
        response = size((_weights(stepped) - _weights(moved)) - (expected - start))
        tolerance = max(tolerance, RESPONSES[precision] * response)
    return FusionCheck(after["step"], deviation, tolerance)


class FusionSampler:
    """Checks, now and then, one trial of those that train together, each time another."""

    def __init__(self) -> None:
        self._stretches: Counter[Hashable] = Counter()

    def check(
        self, cohort: Cohort, trials: Sequence[int], settings: Mapping[int, TrialSetting]
    ) -> dict[int, FusionCheck]:
        """Let trials take one step together and check one of them, if it is time to and they do not train alone.

        Args:
            cohort: They train in it.
            trials: Those that are to train next; all have steps left.
            settings: Of each of them.

        Returns:
            What was found, by trial.
        """
        if len(trials) < 2:
            return {}
        structure = structure_of(settings[trials[0]])
        count = self._stretches[structure]
        self._stretches[structure] += 1
        if count % CHECK_EVERY:
            return {}
        trial = sorted(trials)[count // CHECK_EVERY % len(trials)]
        before = cohort.state(trial)
        outcomes = cohort.advance({each: cohort.step(each) + 1 for each in trials})
        if outcomes[trial] is not Outcome.REACHED:
            return {}
        return {trial: check_step(settings[trial], before, cohort.state(trial))}


class _RoundedTrial(SoloTrial):
    """A trial whose gradients are moved by rounding."""

    def _disturb_gradients(self) -> None:
        super()._disturb_gradients()
        by = ROUNDING[self.setting.precision]
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                parameter.grad = _shaken(f"gradient {name}", parameter.grad, self.step, by=by)


def _stepped(setting: TrialSetting, state: State, *, kind: type[SoloTrial] = SoloTrial) -> State:
    alone = kind(setting)
    alone.restore(state)
    alone.advance(state["step"] + 1)
    return alone.state()


def _moved(state: State, *, by: float) -> State:
    """Return a state whose weights are each moved by at most so much of themselves."""
    model = {name: _shaken(name, entry, state["step"], by=by) for name, entry in state["model"].items()}
    return {**state, "model": model}


def _shaken(name: str, entry: Tensor, step: int, *, by: float) -> Tensor:
    if not entry.is_floating_point():
        return entry
    draw = generator_for(f"moved {name}", step)
    factor = 1 + by * (2 * torch.rand(entry.shape, dtype=torch.float64, generator=draw) - 1)
    return (entry * factor.to(entry.device)).to(entry.dtype)


def _quotient(difference: Tensor, step: Tensor) -> float:
    size, whole = float(difference.norm()), float(step.norm())
    if whole == 0.0:
        return 0.0 if size == 0.0 else math.inf
    return size / whole


def _weights(state: State) -> Tensor:
    return torch.cat([entry.double().flatten() for entry in state["model"].values()])
