"""Fused equals solo, checked where it matters: a step that a trial takes among others, and the same step alone.

max |W_fused − W_solo| / rms(W_solo)  <=  1e-12 in fp64,  1e-5 in fp32,  1e-2 in bf16
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from trainers.checkpoints import State
from trainers.cohorts import Cohort
from trainers.setting import TrialSetting
from trainers.solo import Outcome, SoloTrial
from trainers.structure import structure_of

TOLERANCES: Final = {"fp64": 1e-12, "fp32": 1e-5, "bf16": 1e-2}
CHECK_EVERY: Final = 16
"""Stretches of a structure between two checks, the first of which is checked."""


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
    alone = SoloTrial(setting)
    alone.restore(before)
    alone.advance(before["step"] + 1)
    expected, found = _weights(alone.state()), _weights(after)
    deviation = float((found - expected).abs().max() / expected.square().mean().sqrt())
    return FusionCheck(before["step"] + 1, deviation, TOLERANCES[setting.precision])


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


def _weights(state: State) -> Tensor:
    return torch.cat([entry.double().flatten() for entry in state["model"].values()])
