"""The space that ships with each optimizer; its bounds are argued in the optimizer's file.

On some presets of tasks the learning rates are others (`preset_rates.py`).
"""

from __future__ import annotations

from spectune.search_spaces.adamw import ADAMW
from spectune.search_spaces.domains import Fixed
from spectune.search_spaces.muon import MUON
from spectune.search_spaces.polargrad import POLARGRAD
from spectune.search_spaces.preset_rates import PRESET_RATES
from spectune.search_spaces.root import ROOT
from spectune.search_spaces.sgd import SGD
from spectune.search_spaces.space import Space, nearest_hint
from spectune.search_spaces.spectral_descent import SPECTRAL_DESCENT

DEFAULT_SPACES: dict[str, Space] = {
    "muon": MUON,
    "polargrad": POLARGRAD,
    "root": ROOT,
    "spectral_descent": SPECTRAL_DESCENT,
    "adamw": ADAMW,
    "sgd": SGD,
}


def default_space(optimizer: str, preset: str = "") -> Space:
    """Return the space that ships with an optimizer, with a preset's own learning rates and no decay where it has some.

    Raises:
        ValueError: There is none.
    """
    if optimizer not in DEFAULT_SPACES:
        hint = nearest_hint(optimizer, DEFAULT_SPACES)
        raise ValueError(f"no search space ships with this optimizer{hint}: got {optimizer!r}")
    space = DEFAULT_SPACES[optimizer]
    rates = PRESET_RATES.get(preset, {}).get(optimizer)
    return space if rates is None else Space({**space, "lr": rates, "weight_decay": Fixed(0.0)})
