"""Spectral descent's default space. The step has spectral norm 1 whatever the shape, so lr is a distance in that norm.

lr [1e-3, 0.5]: on matrix factorisation and linear attention a start at 0.05 to 0.1 of the solution's norm with a
geometric decay by 0.95 to 0.97 a step converges; the upper end leaves a factor 5 for short schedules, and the lower is
Muon's lower end, halved, because without momentum nothing averages the noise of a batch.
weight_decay 0 or [1e-3, 0.3]: the theory has none; Muon's range and a decade below it.
adamw_lr_ratio [0.05, 0.5]: as for Muon.
"""

from __future__ import annotations

from spectune.search_spaces.domains import LogUniform, ZeroOrLogUniform
from spectune.search_spaces.space import Space

SPECTRAL_DESCENT = Space(
    {
        "lr": LogUniform(1e-3, 0.5),
        "weight_decay": ZeroOrLogUniform(1e-3, 0.3),
        "adamw_lr_ratio": LogUniform(0.05, 0.5),
    }
)
