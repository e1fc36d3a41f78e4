"""PolarGrad's default space, for the scale `nuclear_mean`: a step is lr times the momentum's mean singular value.

lr [1e-1, 3e2]: the step shrinks with the gradient, so lr has the unit of an inverse curvature and follows the problem,
not the model: the paper's own rates (with the sum of singular values) run from 1.5e-7 to 50. Division by min(rows,
columns) brings its problems and small transformers into these three and a half decades.
weight_decay 0, as in the paper: decay is multiplied by lr, and lr above 1 / weight_decay would flip the weights' signs.
momentum [0.8, 0.99]: the paper uses 0.9 to 0.95.
adamw_lr [1e-4, 3e-2], absolute: a ratio to a rate in other units would mean nothing; the bounds are those of AdamW
on language models, which alone have matrices that are not PolarGrad's.
"""

from __future__ import annotations

from search_spaces.domains import Fixed, LogUniform, OneMinusLogUniform
from search_spaces.space import Space

POLARGRAD = Space(
    {
        "scale": Fixed("nuclear_mean"),
        "lr": LogUniform(1e-1, 3e2),
        "weight_decay": Fixed(0.0),
        "momentum": OneMinusLogUniform(0.8, 0.99),
        "adamw_lr": LogUniform(1e-4, 3e-2),
    }
)
