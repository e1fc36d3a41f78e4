"""Muon's default space, for the scale rule `original`, an update of spectral norm about sqrt(max(1, rows / columns)).

lr [2e-3, 0.5]: published runs sit at 0.02 (Jordan; nanochat 0.02; marin 0.016 for 130M down to 0.004 for 1.2B), with a
loss that rises by 0.02 for a factor 2 and 0.2 for a factor 8 to either side; small models and short runs want more, up
to the 0.05 of Jordan's example and, on linear attention of condition 1000 in 300 steps, 0.4 (benchmarks/spaces.py),
hence a factor 10 of room above that example and below 0.02.
weight_decay 0 or [1e-2, 0.3]: 0.1 is usual and 0.28 the largest published; 0.2 costs 0.02 and none at all 0.07 there,
but short runs on small data are best without.
momentum [0.9, 0.99]: 0.95 is usual, 0.98 wins on longer runs, 0.9 costs 0.01.
adamw_lr_ratio [0.05, 0.5]: marin's best are 0.2 to 0.3, and 0.1 costs 0.01.
Not searched: ns_steps, eps and nesterov, which have not been seen to move the loss (1e-25 to 1e-10 in eps: 0.001).
"""

from __future__ import annotations

from spectune.search_spaces.domains import Fixed, LogUniform, OneMinusLogUniform, ZeroOrLogUniform
from spectune.search_spaces.space import Space

MUON = Space(
    {
        "adjust_lr_fn": Fixed("original"),
        "lr": LogUniform(2e-3, 0.5),
        "weight_decay": ZeroOrLogUniform(1e-2, 0.3),
        "momentum": OneMinusLogUniform(0.9, 0.99),
        "adamw_lr_ratio": LogUniform(0.05, 0.5),
    }
)
