"""Language model: a byte-level decoder on real text (the size PolarGrad 6.4 and ROOT use is a matter of options).

Pre-norm blocks with RMSNorm and rotary positions, no biases, separate query, key and value matrices (a spectral update
of the three stacked would mix their spectra). The loss is the mean cross entropy per byte in nats; a model that knows
nothing has ln 256 = 5.545.

Matrices start at N(0, 1 / fan-in), those that write into the residual stream divided by sqrt(2 depth); the embedding
and the head start at N(0, 0.02²), gains at one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.data.text import CorpusError, Text, list_text, read_text
from trainers.seeds import generator_for
from trainers.tasks.options import TaskOptionError, check_options, option
from trainers.tasks.task import Batch, TaskOptions, place

VOCABULARY = 256
ROPE_BASE = 10_000.0
EMBEDDING_STD = 0.02


@dataclass(frozen=True)
class LanguageModel(TaskOptions):
    """Predict the next byte."""

    width: int = option(64, "Size of the residual stream, a multiple of twice the heads.", at_least=1, at_most=8192)
    depth: int = option(2, "Blocks.", at_least=1, at_most=96)
    heads: int = option(4, "Attention heads.", at_least=1, at_most=128)
    context: int = option(64, "Bytes of a window.", at_least=1, at_most=8192)
    batch_size: int = option(16, "Windows of a batch.", at_least=1, at_most=65_536)
    feed_forward: Literal["swiglu", "gelu"] = option(
        "swiglu", "swiglu (three matrices, 8/3 width inside) or gelu (two, 4 width inside)."
    )
    tied_embeddings: bool = option(False, "Whether the head is the embedding.")
    corpus: str | None = option(None, "A folder of text; null for the Python standard library's sources.")
    validation_batches: int = option(
        8, "Batches of fixed windows, spread evenly over the validation split.", at_least=1, at_most=10_000
    )

    name: ClassVar[str] = "language_model"

    @property
    def items_per_step(self) -> int:
        """Bytes predicted."""
        return self.batch_size * self.context

    def check(self) -> None:
        """Refuse impossible sizes, and a corpus that is missing or smaller than one window."""
        check_options(self)
        if self.width % (2 * self.heads):
            raise TaskOptionError("width", f"must be a multiple of {2 * self.heads}, twice the heads", self.width)
        try:
            shorter = min(list_text(self._corpus_folder()).num_bytes())
        except CorpusError as error:
            raise TaskOptionError("corpus", error.message, str(error.path)) from error
        if shorter <= self.context:
            message = f"the smaller split has {shorter} bytes, a window needs {self.context + 1}"
            raise TaskOptionError("corpus", message, self.corpus)

    def build(self, generator: torch.Generator) -> Decoder:
        """Make the decoder; what its layers draw for themselves is thrown away, and torch's own stream put back."""
        with torch.random.fork_rng(devices=[]):
            decoder = Decoder(self)
        decoder.initialize(generator)
        return decoder

    def batch(self, step: int, seed: int) -> Batch:
        """Give (bytes, next bytes), both (batch_size, context) int64, from windows anywhere in the training files."""
        train = self._text().train
        generator = generator_for("language_model", seed, step)
        starts = torch.randint(len(train) - self.context, (self.batch_size,), generator=generator)
        return self._windows(train, starts)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross entropy in nats per byte."""
        inputs, targets = batch
        return functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    def evaluate(self, model: nn.Module, seed: int) -> dict[str, float]:
        """Measure the same validation windows each time, whatever the seed."""
        losses = [self.loss(model, place(batch, model)) for batch in self._validation_windows()]
        return {"validation_loss": torch.stack(losses).double().mean().item()}

    def _validation_windows(self) -> Iterator[Batch]:
        validation = self._text().validation
        last, count = len(validation) - self.context - 1, self.validation_batches * self.batch_size
        starts = torch.arange(count) * last // max(count - 1, 1)
        for some in starts.view(self.validation_batches, self.batch_size):
            yield self._windows(validation, some)

    def _windows(self, data: Tensor, starts: Tensor) -> Batch:
        windows = data[starts[:, None] + torch.arange(self.context + 1)].long()
        return windows[:, :-1], windows[:, 1:]

    def _corpus_folder(self) -> Path | None:
        return None if self.corpus is None else Path(self.corpus)

    def _text(self) -> Text:
        try:
            return read_text(self._corpus_folder())
        except CorpusError as error:
            raise TaskOptionError("corpus", error.message, str(error.path)) from error


class Decoder(nn.Module):
    """The transformer: bytes (batch, context) to logits (batch, context, 256)."""

    rotations: Tensor

    def __init__(self, task: LanguageModel) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, task.width)
        self.blocks = nn.ModuleList(Block(task) for _ in range(task.depth))
        self.norm = nn.RMSNorm(task.width)
        self.head = _matrix(task.width, VOCABULARY)
        if task.tied_embeddings:
            self.head.weight = self.embedding.weight
        self.register_buffer("rotations", _rotations(task.context, task.width // task.heads), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Give the logits of each position's next byte."""
        stream = self.embedding(inputs)
        for block in self.blocks:
            stream = block(stream, self.rotations)
        logits: Tensor = self.head(self.norm(stream))
        return logits

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw every matrix, in the order of `named_parameters`."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, self._std(name, parameter), generator=generator)

    def _std(self, name: str, parameter: Tensor) -> float:
        if name.startswith(("embedding.", "head.")):
            return EMBEDDING_STD
        into_stream = name.endswith(("attention.mix.weight", "feed_forward.down.weight"))
        return 1.0 / math.sqrt(parameter.shape[1] * (2 * len(self.blocks) if into_stream else 1))


class Block(nn.Module):
    """Attention, then the feed-forward network, each added to the stream."""

    def __init__(self, task: LanguageModel) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(task.width)
        self.attention = Attention(task.width, task.heads)
        self.feed_forward_norm = nn.RMSNorm(task.width)
        self.feed_forward = FEED_FORWARDS[task.feed_forward](task.width)

    def forward(self, stream: Tensor, rotations: Tensor) -> Tensor:
        """Give the stream after both."""
        stream = stream + self.attention(self.attention_norm(stream), rotations)
        out: Tensor = stream + self.feed_forward(self.feed_forward_norm(stream))
        return out


class Attention(nn.Module):
    """Causal attention with rotary positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = _matrix(width, width)
        self.key = _matrix(width, width)
        self.value = _matrix(width, width)
        self.mix = _matrix(width, width)

    def forward(self, stream: Tensor, rotations: Tensor) -> Tensor:
        """Mix positions; (batch, context, width) in and out."""
        query, key, value = (self._by_head(m(stream)) for m in (self.query, self.key, self.value))
        query, key = _rotate(query, rotations), _rotate(key, rotations)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.mix(mixed.transpose(1, 2).flatten(2))
        return out

    def _by_head(self, stream: Tensor) -> Tensor:
        batch, context, width = stream.shape
        return stream.view(batch, context, self.heads, width // self.heads).transpose(1, 2)


class SwiGLU(nn.Module):
    """Down(silu(gate x) * (up x)), 8/3 width inside, rounded up to a multiple of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inside = 8 * math.ceil(width / 3)
        self.gate = _matrix(width, inside)
        self.up = _matrix(width, inside)
        self.down = _matrix(inside, width)

    def forward(self, stream: Tensor) -> Tensor:
        """Transform each position."""
        out: Tensor = self.down(functional.silu(self.gate(stream)) * self.up(stream))
        return out


class GELU(nn.Module):
    """Down(gelu(up x)), 4 width inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = _matrix(width, 4 * width)
        self.down = _matrix(4 * width, width)

    def forward(self, stream: Tensor) -> Tensor:
        """Transform each position."""
        out: Tensor = self.down(functional.gelu(self.up(stream)))
        return out


FEED_FORWARDS: dict[str, type[SwiGLU | GELU]] = {"swiglu": SwiGLU, "gelu": GELU}


def _matrix(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def _rotations(context: int, head_width: int) -> Tensor:
    """Give cos and sin of each position's angles, (2, context, head_width), the angles repeated for both halves."""
    frequencies = ROPE_BASE ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angles = torch.outer(torch.arange(context, dtype=torch.float64), frequencies).repeat(1, 2)
    return torch.stack((angles.cos(), angles.sin())).float()


def _rotate(heads: Tensor, rotations: Tensor) -> Tensor:
    """Turn each pair (i, i + half) of a head's entries by its position's angle."""
    first, second = heads.chunk(2, dim=-1)
    context = heads.shape[-2]
    turned = torch.cat((-second, first), dim=-1)
    rotated: Tensor = heads * rotations[0, :context] + turned * rotations[1, :context]
    return rotated.to(heads.dtype)
