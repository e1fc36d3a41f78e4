"""AdamW's default space. It is the baseline, so it is tuned as thoroughly as the others.

lr [1e-4, 0.3]: large models are trained at 3e-4 to 4e-3 and marin's 130M start is 0.008; smaller ones want more, and
matrix problems 0.07 to 0.12 in 300 steps, where 0.03 costs a fifth of the loss and more (benchmarks/spaces.py).
weight_decay 0 or [1e-2, 0.3]: 0.1 is usual; less than 1e-2 cannot be told from none in a run this short.
betas: the second from 0.95 (language models) to 0.999 (torch's default), the first 0.9, and marin's (0.8, 0.98).
"""

from __future__ import annotations

from spectune.search_spaces.domains import Choice, LogUniform, ZeroOrLogUniform
from spectune.search_spaces.space import Space

ADAMW = Space(
    {
        "lr": LogUniform(1e-4, 0.3),
        "weight_decay": ZeroOrLogUniform(1e-2, 0.3),
        "betas": Choice(([0.9, 0.95], [0.9, 0.99], [0.9, 0.999], [0.8, 0.98])),
    }
)
