"""One random stream per purpose."""

from __future__ import annotations

import torch

from spectune.trainers.seeds import generator_for


def draw(purpose: str, *numbers: int) -> list[int]:
    return torch.randint(1 << 40, (8,), generator=generator_for(purpose, *numbers)).tolist()


def test_equal_purposes_and_numbers_give_equal_streams_whatever_was_drawn_before() -> None:
    first = draw("model", 3)
    torch.rand(5)
    assert draw("model", 3) == first


def test_purposes_numbers_and_their_order_give_different_streams() -> None:
    streams = [
        draw("model", 3),
        draw("data", 3),
        draw("model", 4),
        draw("data", 3, 4),
        draw("data", 4, 3),
        draw("data"),
    ]
    assert len({tuple(stream) for stream in streams}) == len(streams)


def test_torchs_global_stream_is_left_alone() -> None:
    state = torch.get_rng_state()
    draw("model", 3)
    assert torch.equal(torch.get_rng_state(), state)
