"""Attention: torch's own to the last bit, and a stack of trials in one call."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import scaled_dot_product_attention

from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.attention import attend


def drawn(*leading: int, dtype: torch.dtype) -> list[Tensor]:
    generator = generator_for("test", *leading)
    return [torch.randn(*leading, 2, 4, 16, 8, dtype=dtype, generator=generator) for _ in range(3)]


def in_full(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> Tensor:
    """The obvious one: every score, masked, normalised."""
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(16, 16, dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(dim=-1) @ value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("causal", [True, False])
def test_values_and_gradients_are_torchs_to_the_last_bit(causal: bool, dtype: torch.dtype) -> None:
    ours, theirs = ([each.requires_grad_() for each in drawn(dtype=dtype)] for _ in range(2))
    mixed = attend(ours[0], ours[1], ours[2], causal=causal)
    expected = scaled_dot_product_attention(theirs[0], theirs[1], theirs[2], is_causal=causal)
    assert torch.equal(mixed, expected)
    (mixed**2).sum().backward()
    (expected**2).sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_the_obvious_formula(causal: bool) -> None:
    query, key, value = drawn(dtype=torch.float64)
    torch.testing.assert_close(
        attend(query, key, value, causal=causal), in_full(query, key, value, causal=causal), rtol=1e-12, atol=1e-12
    )
    assert not torch.allclose(attend(query, key, value, causal=causal), in_full(query, key, value, causal=not causal))


@pytest.mark.parametrize("shared", [False, True])
def test_a_stack_of_trials_gets_each_trials_gradients_without_a_loop(shared: bool) -> None:
    query, key, value = drawn(3, dtype=torch.float64)
    if shared:
        key = key[:1].expand_as(key)

    def loss(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return (attend(query, key, value, causal=True) ** 2).sum()

    in_dims = (0, None if shared else 0, 0)
    fused = vmap(grad(loss, argnums=(0, 1, 2)), in_dims)(query, key[0] if shared else key, value)
    for number in range(3):
        one = [each[number].clone().requires_grad_() for each in (query, key, value)]
        (in_full(*one, causal=True) ** 2).sum().backward()
        for of_stack, alone in zip(fused, one, strict=True):
            torch.testing.assert_close(of_stack[number], alone.grad, rtol=1e-10, atol=1e-12)
