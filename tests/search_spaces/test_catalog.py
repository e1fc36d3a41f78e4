"""The spaces that ship with the optimizers."""

from __future__ import annotations

import pytest

from spectune.search_spaces import DEFAULT_SPACES, Space, default_space, parse_space


@pytest.mark.parametrize("space", DEFAULT_SPACES.values(), ids=DEFAULT_SPACES)
def test_a_default_space_survives_being_written_and_read(space: Space) -> None:
    assert parse_space(space.document()) == space


@pytest.mark.parametrize("space", DEFAULT_SPACES.values(), ids=DEFAULT_SPACES)
def test_decay_never_flips_the_sign_of_a_weight_anywhere_in_a_default_space(space: Space) -> None:
    assert max(space["lr"].extremes()) * max(space["weight_decay"].extremes()) < 1


def test_an_unknown_optimizer_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'muon'\?: got 'mun'"):
        default_space("mun")
