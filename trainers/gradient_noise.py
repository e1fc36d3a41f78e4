"""Noise on gradients: what ROOT's percentile is for, made on purpose.

    G' = G + a · rms(G) · Z,    rms(G) = ‖G‖_F / √(number of entries)

    student_t    Z_ij ~ Student's t with ν degrees of freedom: heavy tails everywhere (infinite variance for ν <= 2)
    spikes       Z_ij = ±1 with probability `rate`, else 0: few outliers, each a · rms(G) large

Z is a pure function of (data seed, step, parameter name), drawn on the CPU in fp32: a resumed trial, another engine and
another device see the same. Student's t comes from two uniform numbers by Bailey's polar method (Math. Comp. 62, 1994):
Z = √(ν (U^(−2/ν) − 1)) cos 2πV, which is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spectune.trainers.seeds import generator_for


@dataclass(frozen=True)
class GradientNoise:
    """How the gradients of a task are disturbed.

    Attributes:
        kind: The distribution of Z.
        amount: The factor a, in units of the gradient's root mean square.
        rate: The probability of a spike.
        degrees_of_freedom: Student's ν, at least 1.
    """

    kind: Literal["student_t", "spikes"]
    amount: float
    rate: float
    degrees_of_freedom: float

    def draw(self, name: str, shape: Sequence[int], *, seed: int, step: int) -> Tensor:
        """Draw Z for one parameter at one step.

        Args:
            name: The parameter's, as `named_parameters` gives it.
            shape: The parameter's.
            seed: The data's.
            step: Steps taken before.

        Returns:
            A tensor of that shape, fp32, on the CPU.
        """
        generator = generator_for(f"gradient_noise:{name}", seed, step)
        first, second = torch.rand(2, *shape, dtype=torch.float64, generator=generator)
        if self.kind == "spikes":
            return torch.where(first < self.rate, torch.where(second < 0.5, -1.0, 1.0), 0.0)
        nu = self.degrees_of_freedom
        radius = (nu * torch.expm1(torch.log1p(-first) * (-2.0 / nu))).sqrt()  # 1 - rand lies in (0, 1]
        return (radius * torch.cos(2.0 * math.pi * second)).float()

    def disturb(self, name: str, gradient: Tensor, *, seed: int, step: int) -> Tensor:
        """Return a parameter's gradient with its noise; the gradient itself is left alone.

        A gradient of zeros stays zero, one with non-finite entries stays non-finite.
        """
        return self.disturb_stack(name, gradient[None], seeds=(seed,), steps=(step,))[0]

    def disturb_stack(self, name: str, gradients: Tensor, *, seeds: Sequence[int], steps: Sequence[int]) -> Tensor:
        """Return the gradients of several trials, [trials, ...], each with its own noise and its own root mean square.

        Args:
            name: The parameter's, without any index of the trial.
            gradients: A row for each trial, any dtype and device.
            seeds: Each trial's data seed.
            steps: How many steps each trial has taken.
        """
        one = gradients.shape[1:]
        drawn = {pair: self.draw(name, one, seed=pair[0], step=pair[1]) for pair in set(zip(seeds, steps, strict=True))}
        noise = torch.stack([drawn[pair] for pair in zip(seeds, steps, strict=True)]).to(gradients)
        norms = torch.linalg.vector_norm(gradients.flatten(1), dim=1)
        scale = self.amount * norms / math.sqrt(max(one.numel(), 1))
        disturbed: Tensor = gradients + scale.view(-1, *[1] * len(one)) * noise
        return disturbed


def noise_of(task: object) -> GradientNoise | None:
    """Return the noise that a task asks for; one that does not declare the options has none."""
    noise = getattr(task, "noise", None)
    assert noise is None or isinstance(noise, GradientNoise), f"a task's noise: got {noise!r}"
    return noise
