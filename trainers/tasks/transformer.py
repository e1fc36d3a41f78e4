"""The blocks of a pre-norm transformer: RMSNorm, attention, a feed-forward network; no biases.

Query, key and value are separate matrices: a spectral update of the three stacked would mix their spectra. Matrices
start at N(0, 1 / fan-in), those that write into the residual stream divided by sqrt(2 depth).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectune.trainers.tasks.attention import attend


class Block(nn.Module):
    """Attention, then the feed-forward network, each added to the stream."""

    def __init__(self, width: int, heads: int, feed_forward: str, inside: int, *, causal: bool) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width)
        self.attention = Attention(width, heads, causal=causal)
        self.feed_forward_norm = nn.RMSNorm(width)
        self.feed_forward = FEED_FORWARDS[feed_forward](width, inside)

    def forward(self, stream: Tensor, rotations: Tensor | None = None) -> Tensor:
        """Return the stream after both, (batch, positions, width)."""
        stream = stream + self.attention(self.attention_norm(stream), rotations)
        out: Tensor = stream + self.feed_forward(self.feed_forward_norm(stream))
        return out


class Attention(nn.Module):
    """Attention over heads, with rotary positions where rotations are given."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.query = matrix(width, width)
        self.key = matrix(width, width)
        self.value = matrix(width, width)
        self.mix = matrix(width, width)

    def forward(self, stream: Tensor, rotations: Tensor | None) -> Tensor:
        """Mix positions; (batch, positions, width) in and out."""
        query, key, value = (self._by_head(m(stream)) for m in (self.query, self.key, self.value))
        if rotations is not None:
            query, key = rotate(query, rotations), rotate(key, rotations)
        mixed = attend(query, key, value, causal=self.causal)
        out: Tensor = self.mix(mixed.transpose(1, 2).flatten(2))
        return out

    def _by_head(self, stream: Tensor) -> Tensor:
        batch, positions, width = stream.shape
        return stream.view(batch, positions, self.heads, width // self.heads).transpose(1, 2)


class SwiGLU(nn.Module):
    """Down(silu(gate x) * (up x))."""

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.gate = matrix(width, inside)
        self.up = matrix(width, inside)
        self.down = matrix(inside, width)

    def forward(self, stream: Tensor) -> Tensor:
        """Transform each position."""
        out: Tensor = self.down(functional.silu(self.gate(stream)) * self.up(stream))
        return out


class GELU(nn.Module):
    """Down(gelu(up x))."""

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.up = matrix(width, inside)
        self.down = matrix(inside, width)

    def forward(self, stream: Tensor) -> Tensor:
        """Transform each position."""
        out: Tensor = self.down(functional.gelu(self.up(stream)))
        return out


FEED_FORWARDS: dict[str, type[SwiGLU | GELU]] = {"swiglu": SwiGLU, "gelu": GELU}


def inside_width(feed_forward: str, width: int) -> int:
    """Return the usual inner width: 8/3 of the width for SwiGLU's three matrices, in multiples of 8; 4 for GELU."""
    return 8 * math.ceil(width / 3) if feed_forward == "swiglu" else 4 * width


def matrix(inputs: int, outputs: int) -> nn.Linear:
    """Make a linear map without bias."""
    return nn.Linear(inputs, outputs, bias=False)


@torch.no_grad()
def initialize(model: nn.Module, generator: torch.Generator, *, depth: int, small: tuple[str, ...], std: float) -> None:
    """Draw every matrix, in the order of `named_parameters`; those whose names start with `small` at N(0, std²)."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            into_stream = name.endswith(("attention.mix.weight", "feed_forward.down.weight"))
            scaled = 1.0 / math.sqrt(parameter.shape[1] * (2 * depth if into_stream else 1))
            parameter.normal_(0.0, std if name.startswith(small) else scaled, generator=generator)


def rotary_angles(context: int, head_width: int, base: float) -> Tensor:
    """Return cos and sin of each position's angles, (2, context, head_width), the angles repeated for both halves."""
    frequencies = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angles = torch.outer(torch.arange(context, dtype=torch.float64), frequencies).repeat(1, 2)
    return torch.stack((angles.cos(), angles.sin())).float()


def rotate(heads: Tensor, rotations: Tensor) -> Tensor:
    """Turn each pair (i, i + half) of a head's entries by its position's angle."""
    first, second = heads.chunk(2, dim=-1)
    context = heads.shape[-2]
    turned = torch.cat((-second, first), dim=-1)
    rotated: Tensor = heads * rotations[0, :context] + turned * rotations[1, :context]
    return rotated.to(heads.dtype)
