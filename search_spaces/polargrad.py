"""PolarGrad's default space, for the scale `nuclear_mean`: a step is lr times the momentum's mean singular value.

lr [1e-1, 3e2]: the step shrinks with the gradient, so lr has the unit of an inverse curvature and follows the problem,
not the model: the paper's own rates (with the sum of singular values) run from 1.5e-7 to 50. Division by min(rows,
columns) brings its problems and small transformers into these three and a half decades.
weight_decay 0, as in the paper: decay is multiplied by lr, and lr above 1 / weight_decay would flip the weights' signs.
momentum [0.8, 0.99]: the paper uses 0.9 to 0.95. Very short runs want less: 80 steps of the demo's model end at 2.45
with 0.9, 2.39 with 0.7 and 2.40 with 0.5. The space reaches no further for them, as Muon's beside it does not.
adamw_lr [1e-4, 0.3], absolute: a ratio to a rate in other units would mean nothing; the bounds are those of AdamW. The
demo is best at 0.06 to 0.12 (2.48, 2.46, 2.45, 2.49 with 0.03, 0.06, 0.12, 0.3), and the speed runs of GPT-2 train
embeddings at 0.6.
"""

from __future__ import annotations

from spectune.search_spaces.domains import Fixed, LogUniform, OneMinusLogUniform
from spectune.search_spaces.space import Space

POLARGRAD = Space(
    {
        "scale": Fixed("nuclear_mean"),
        "lr": LogUniform(1e-1, 3e2),
        "weight_decay": Fixed(0.0),
        "momentum": OneMinusLogUniform(0.8, 0.99),
        "adamw_lr": LogUniform(1e-4, 3e-1),
    }
)
