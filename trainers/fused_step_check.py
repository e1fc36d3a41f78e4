"""Fused equals solo, checked on a trial's own state: one step in both engines, and how far the weights then lie apart.

    max |W_fused − W_solo| / rms(W_solo)  <=  1e-12 in fp64,  1e-5 in fp32,  1e-2 in bf16

The fused step is one of two equal lanes, so that it takes the path of a stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from trainers.checkpoints import State
from trainers.population import Population
from trainers.setting import TrialSetting
from trainers.solo import SoloTrial

TOLERANCES: Final = {"fp64": 1e-12, "fp32": 1e-5, "bf16": 1e-2}


@dataclass(frozen=True)
class FusionCheck:
    """What a check found.

    Attributes:
        step: The step taken in both engines.
        deviation: The largest difference of weights, in units of their root mean square; NaN where one is not finite.
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
    alone, together = SoloTrial(setting), Population()
    alone.restore(state)
    alone.advance(step)
    for lane in (0, 1):
        together.admit(lane, setting, state)
    together.advance({0: step, 1: step})
    expected, found = _weights(alone.state()), _weights(together.state(0))
    deviation = float((found - expected).abs().max() / expected.square().mean().sqrt())
    return FusionCheck(step, deviation, TOLERANCES[setting.precision])


def _weights(state: State) -> Tensor:
    return torch.cat([entry.double().flatten() for entry in state["model"].values()])
