"""Schedules: what a step's learning rate is multiplied with.

With T steps in all, w = round(warmup_fraction * T) of them warm-up, and t counting from 0:

    warm-up     (t + 1) / w                                  for t < w, multiplied into every shape
    constant    1
    cosine      f + (1 - f) (1 + cos(pi u)) / 2              u = (t - w) / (T - w)
    linear      f + (1 - f) (1 - u)
    wsd         1, then over the last d = round(decay_fraction * T) steps  f + (1 - f) (T - t) / d
    step        decay_factor ** (t // decay_every)           torch's StepLR; decay_every counts steps

f = final_fraction is what the factor tends to at t = T, one step after the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from spectune.trainers.options import OptionError, unknown

TAKES: dict[str, tuple[str, ...]] = {
    "constant": (),
    "cosine": ("final_fraction",),
    "linear": ("final_fraction",),
    "wsd": ("decay_fraction", "final_fraction"),
    "step": ("decay_every", "decay_factor"),
}
"""The options each shape takes beside `warmup_fraction`."""

DEFAULTS: dict[str, float] = {"final_fraction": 0.0, "decay_fraction": 0.3}
"""What an option is where it is not given; `decay_every` and `decay_factor` have no sensible default."""


class ScheduleOptionError(OptionError):
    """An option of a schedule that cannot be used."""


@dataclass(frozen=True)
class Schedule:
    """The shape of the learning rate over a trial.

    Attributes:
        shape: A key of `TAKES`.
        warmup_fraction: Part of the trial's steps over which the factor rises linearly, in [0, 1).
        decay_fraction: wsd: part of the steps in which it falls, in (0, 1 - warmup_fraction]; 0.3 if None.
        decay_every: step: so many steps between two drops.
        decay_factor: step: what a drop multiplies with, in (0, 1].
        final_fraction: cosine, linear, wsd: where the factor ends, in [0, 1]; 0 if None.

    Raises:
        ScheduleOptionError: A value is outside its range, misses, or belongs to another shape.
    """

    shape: str = "constant"
    warmup_fraction: float = 0.0
    decay_fraction: float | None = None
    decay_every: int | None = None
    decay_factor: float | None = None
    final_fraction: float | None = None

    def __post_init__(self) -> None:
        if self.shape not in TAKES:
            raise ScheduleOptionError("shape", unknown("shape", str(self.shape), TAKES), self.shape)
        for field in fields(self):
            self._check_presence(field.name, getattr(self, field.name))
        self._check_ranges()

    def factor(self, step: int, steps: int) -> float:
        """Return the factor for one step.

        Args:
            step: The step about to be taken, from 0.
            steps: All steps of the trial.
        """
        assert 0 <= step < steps, f"step {step} of {steps}"
        warmup = round(self.warmup_fraction * steps)
        return self._warmed_up(step, warmup) * self._shaped(step, steps, warmup)

    @staticmethod
    def _warmed_up(step: int, warmup: int) -> float:
        return (step + 1) / warmup if step < warmup else 1.0

    def _shaped(self, step: int, steps: int, warmup: int) -> float:
        if self.shape == "step":
            return float(self._value("decay_factor") ** (step // self._value("decay_every")))
        if self.shape == "constant" or step < warmup:
            return 1.0
        progress = (step - warmup) / (steps - warmup)
        if self.shape == "wsd":
            decay = max(round(self._value("decay_fraction") * steps), 1)
            progress = max(0.0, 1.0 - (steps - step) / decay)
        fall = (1.0 + math.cos(math.pi * progress)) / 2.0 if self.shape == "cosine" else 1.0 - progress
        final = self._value("final_fraction")
        return final + (1.0 - final) * fall

    def _value(self, option: str) -> float:
        value = getattr(self, option)
        return float(DEFAULTS[option]) if value is None else value

    def _check_presence(self, option: str, value: Any) -> None:
        if option in ("shape", "warmup_fraction"):
            return
        takes = TAKES[self.shape]
        if value is not None and option not in takes:
            raise ScheduleOptionError(option, f"the shape {self.shape!r} does not take it", value)
        if value is None and option in takes and option not in DEFAULTS:
            raise ScheduleOptionError(option, f"the shape {self.shape!r} needs it", value)

    def _check_ranges(self) -> None:
        self._check_number("warmup_fraction", 0.0 <= _number(self.warmup_fraction) < 1.0, "at least 0 and below 1")
        if self.decay_fraction is not None:
            allowed = 0.0 < _number(self.decay_fraction) <= 1.0 - self.warmup_fraction + 1e-12
            self._check_number("decay_fraction", allowed, "above 0 and at most 1 - warmup_fraction")
        if self.decay_every is not None:
            allowed = type(self.decay_every) is int and self.decay_every >= 1
            self._check_number("decay_every", allowed, "a whole number of steps, at least 1")
        if self.decay_factor is not None:
            self._check_number("decay_factor", 0.0 < _number(self.decay_factor) <= 1.0, "above 0 and at most 1")
        if self.final_fraction is not None:
            self._check_number("final_fraction", 0.0 <= _number(self.final_fraction) <= 1.0, "at least 0 and at most 1")

    def _check_number(self, option: str, allowed: bool, range_text: str) -> None:
        if not allowed:
            raise ScheduleOptionError(option, f"must be {range_text}", getattr(self, option))


def _number(value: Any) -> float:
    """Return a number for comparison; NaN, which fails every one, for what is not a number."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
