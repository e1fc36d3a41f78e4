"""Plain gradient descent's default space. Without momentum only the learning rate decides, up to 2 / curvature.

lr [1e-3, 1e1]: the theory's step 1 / L is 0.5 on a normalised factorisation; cross-entropies of networks with
normalisation layers train at 0.1 to 1, and a factor 10 either way costs a log-uniform search little.
weight_decay 0 or [1e-5, 1e-2]: the usual 1e-4 to 5e-4 of image networks is in the middle; it is multiplied by lr, which
is some hundred times AdamW's, so its decades lie as much lower.
"""

from __future__ import annotations

from spectune.search_spaces.domains import LogUniform, ZeroOrLogUniform
from spectune.search_spaces.space import Space

SGD = Space({"lr": LogUniform(1e-3, 1e1), "weight_decay": ZeroOrLogUniform(1e-5, 1e-2)})
