"""Fused equals solo, checked on a trial's own state: one step in both engines, and how far the weights then lie apart.

    max |W_fused − W_solo| / rms(W_solo)  <=  1e-12 in fp64,  1e-5 in fp32

In bf16 no such number holds: a product that is summed in another order may round to the neighbour, and a polar factor
or Adam's quotient answers a small gradient with a whole step. What correct engines may differ by is therefore measured:
it is what the solo engine's step U makes of weights moved by half the distance of neighbours, which bf16 cannot see,

    ‖U_fused − U_solo‖ / ‖U_solo‖  <=  max(2⁻⁸, 4 ‖U_moved − U_solo‖ / ‖U_solo‖),    W_moved = W (1 ± 2⁻⁹)

The fused step is one of two equal lanes, so that it takes the path of a stack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from trainers.checkpoints import State
from trainers.population import Population
from trainers.seeds import generator_for
from trainers.setting import TrialSetting
from trainers.solo import SoloTrial

TOLERANCES: Final = {"fp64": 1e-12, "fp32": 1e-5}
HALF_NEIGHBOUR: Final = 2**-9
"""Half the largest relative distance of two neighbours in bf16."""
RESPONSES: Final = 4.0
"""In 108 steps of small transformers under all rules, 1.5 were enough for all but one, which needed 3.0."""


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


def verify_fusion(setting: TrialSetting, state: State) -> FusionCheck:
    """Take one step from a trial's state in both engines.

    Args:
        setting: The trial's.
        state: Of either engine.

    Raises:
        CheckpointError: The state belongs to a trial with another setting.
        ValueError: The trial has no step left.
    """
    step = state["step"] + 1
    together = Population()
    for lane in (0, 1):
        together.admit(lane, setting, state)
    together.advance({0: step, 1: step})
    return compared(setting, state, together.state(0))


def compared(setting: TrialSetting, before: State, after: State) -> FusionCheck:
    """Compare a step that was taken elsewhere, from a state to the next, with the one that the trial takes alone."""
    start, expected, found = _weights(before), _weights(_stepped(setting, before)), _weights(after)
    if setting.precision != "bf16":
        deviation = float((found - expected).abs().max() / expected.square().mean().sqrt())
        return FusionCheck(after["step"], deviation, TOLERANCES[setting.precision])
    moved = _moved(before)
    unseen = (_weights(_stepped(setting, moved)) - _weights(moved)) - (expected - start)
    response = _quotient(unseen, expected - start)
    deviation = _quotient(found - expected, expected - start)
    return FusionCheck(after["step"], deviation, max(2 * HALF_NEIGHBOUR, RESPONSES * response))


def _stepped(setting: TrialSetting, state: State) -> State:
    alone = SoloTrial(setting)
    alone.restore(state)
    alone.advance(state["step"] + 1)
    return alone.state()


def _moved(state: State) -> State:
    """Give a state whose weights are each moved by less than half a neighbour's distance."""
    model = {}
    for name, entry in state["model"].items():
        draw = generator_for(f"moved {name}", state["step"])
        factor = 1 + HALF_NEIGHBOUR * (2 * torch.rand(entry.shape, dtype=torch.float64, generator=draw) - 1)
        model[name] = (entry * factor).to(entry.dtype) if entry.is_floating_point() else entry
    return {**state, "model": model}


def _quotient(difference: Tensor, step: Tensor) -> float:
    size, whole = float(difference.norm()), float(step.norm())
    if whole == 0.0:
        return 0.0 if size == 0.0 else math.inf
    return size / whole


def _weights(state: State) -> Tensor:
    return torch.cat([entry.double().flatten() for entry in state["model"].values()])
