"""Learning rates of presets whose losses are not normalised."""

from __future__ import annotations

import pytest

from spectune.search_spaces import DEFAULT_SPACES, Fixed, default_space
from spectune.search_spaces.preset_rates import PRESET_RATES
from spectune.trainers.tasks import PRESETS

CASES = [(preset, optimizer) for preset, rates in PRESET_RATES.items() for optimizer in rates]


def test_rates_are_of_presets_and_optimizers_that_exist() -> None:
    assert PRESET_RATES.keys() <= PRESETS.keys()
    assert {optimizer for _, optimizer in CASES} <= DEFAULT_SPACES.keys()


@pytest.mark.parametrize(("preset", "optimizer"), CASES)
def test_a_preset_changes_the_rate_and_leaves_out_decay_and_nothing_else(preset: str, optimizer: str) -> None:
    space, usual = default_space(optimizer, preset), default_space(optimizer)
    assert space["lr"] == PRESET_RATES[preset][optimizer] != usual["lr"]
    assert space["weight_decay"] == Fixed(0.0)
    assert space.keys() == usual.keys()
    assert {name for name in usual if space[name] != usual[name]} <= {"lr", "weight_decay"}


@pytest.mark.parametrize("preset", ["", "bytes-0.2m", "no-such-preset"])
def test_other_presets_have_the_optimizers_own_space(preset: str) -> None:
    assert default_space("muon", preset) == DEFAULT_SPACES["muon"]
