"""ROOT's default space; its scale rule is `match_rms_adamw`, so its learning rates are those of AdamW.

lr [3e-4, 1]: the paper trains at 1e-3 and published runs with matched updates use 3e-4 to 3e-3, all on models of
100M parameters and more; small ones want more: 0.07 on matrix factorisation, 0.4 on linear attention in 300 steps
(benchmarks/spaces.py), and a wide upper end costs a log-uniform search little.
weight_decay 0 or [1e-2, 0.3]: as for AdamW and Muon; the paper's 0.1 is inside.
momentum [0.9, 0.99]: around the paper's 0.95 (a sum, not a mean: Muon's times 1 / (1 - momentum), a factor that the
polar factor does not see).
percentile [0.8, 1]: the paper's 0.9 is in the middle; 1 is no clipping at all, so the space holds plain momentum too.
adamw_lr_ratio [0.1, 1]: with matched update sizes the rest of the model can take the same rate (the paper's choice, 1)
but where the matrix rate is large it wants less.
Not searched: coefficients. `online` brings the directions a third nearer to orthogonal and has not been seen to move
the loss (docs/decisions/0106); being structural, a choice would also part trials that could train together. A campaign
asks for it with `coefficients: {choice: [table, online]}`, or `calibrated` after `spectune calibrate`.
"""

from __future__ import annotations

from spectune.search_spaces.domains import LogUniform, OneMinusLogUniform, Uniform, ZeroOrLogUniform
from spectune.search_spaces.space import Space

ROOT = Space(
    {
        "lr": LogUniform(3e-4, 1.0),
        "weight_decay": ZeroOrLogUniform(1e-2, 0.3),
        "momentum": OneMinusLogUniform(0.9, 0.99),
        "percentile": Uniform(0.8, 1.0),
        "adamw_lr_ratio": LogUniform(0.1, 1.0),
    }
)
