"""Learning rates of the presets whose losses are not normalised, so that an optimizer's own range misses the best.

PolarGrad's sections 6.1 and 6.3 add up squares over all entries: the curvature, whose inverse is the rate of SGD and of
PolarGrad, lies eight decades apart between them (the paper's own rates go from 1.5e-7 to 50), and the weights are many
times larger than those of a normalised problem, for which Muon and AdamW take longer steps. A range that held both
would find nothing elsewhere.

Each is one to two decades to either side of the best of `benchmarks/spaces.py`, 300 steps under a cosine schedule:

                     muon    polargrad   adamw   sgd
    polargrad-6.1    0.61    4.5e-5      0.68    7.9e-7
    polargrad-6.3            2.1e3       1.2     130

Whatever has no line here keeps its own range, which holds the best. SGD and PolarGrad diverge at two to three times
their best, so that their ranges reach further down than up. There is no weight decay: the loss is the aim, and
decay is multiplied by these rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from search_spaces.domains import LogUniform

PRESET_RATES: Final[Mapping[str, Mapping[str, LogUniform]]] = {
    "polargrad-6.1": {
        "muon": LogUniform(1e-2, 5.0),
        "polargrad": LogUniform(5e-7, 5e-4),
        "adamw": LogUniform(1e-2, 5.0),
        "sgd": LogUniform(1e-8, 1e-5),
    },
    "polargrad-6.3": {
        "polargrad": LogUniform(1e1, 1e4),
        "adamw": LogUniform(1e-2, 1e1),
        "sgd": LogUniform(1.0, 1e3),
    },
}
