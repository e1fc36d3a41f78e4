"""Learning rates of the presets whose losses are not normalised, so that an optimizer's own range misses the best.

PolarGrad's sections 6.1 to 6.3 add up over entries or samples: the curvature, whose inverse is the rate of SGD and of
PolarGrad, lies eight decades apart between them (the paper's own rates go from 1.5e-7 to 50), and Muon and AdamW want
longer steps there than elsewhere. A range that held all would find nothing on other problems.

Each is about one to two decades to either side of the best of `benchmarks/spaces.py`, under a cosine schedule (300
steps, for section 6.2 with its batches 100):

                     muon    polargrad   spectral_descent   adamw   sgd
    polargrad-6.1    0.39    3.7e-5                         0.69    7.4e-7
    polargrad-6.2    0.61    1.4e-4      1.1                        4.5e-5
    polargrad-6.3            2.3e3                          0.74    130

Whatever has no line here keeps its own range, which holds the best. There is no weight decay: the loss is the aim, and
decay is multiplied by these rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from spectune.search_spaces.domains import LogUniform

PRESET_RATES: Final[Mapping[str, Mapping[str, LogUniform]]] = {
    "polargrad-6.1": {
        "muon": LogUniform(1e-2, 5.0),
        "polargrad": LogUniform(5e-7, 5e-4),
        "adamw": LogUniform(1e-2, 5.0),
        "sgd": LogUniform(1e-8, 1e-5),
    },
    "polargrad-6.2": {
        "muon": LogUniform(1e-2, 5.0),
        "polargrad": LogUniform(5e-6, 5e-3),
        "spectral_descent": LogUniform(1e-2, 1e1),
        "sgd": LogUniform(1e-6, 1e-3),
    },
    "polargrad-6.3": {
        "polargrad": LogUniform(1e1, 1e4),
        "adamw": LogUniform(1e-2, 1e1),
        "sgd": LogUniform(1.0, 1e3),
    },
}
