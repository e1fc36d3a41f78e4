"""Language model: a decoder on bytes of real text, or on tokens (PolarGrad 6.4 and ROOT are a matter of options).

Pre-norm blocks with RMSNorm and rotary positions. The loss is the mean cross entropy per byte or token in nats; a model
of bytes that knows nothing has ln 256 = 5.545. The embedding and the head start at N(0, 0.02²).

The presets `gpt2-small` and `qwen2.5-0.5b` have the sizes of those models, not their details (no biases, no LayerNorm).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectune.trainers.data.corpora import (
    Corpus,
    CorpusError,
    Tokens,
    corpus_fingerprint,
    list_corpus,
    read_corpus,
    vocabulary_of,
)
from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.options import TaskOptionError, check_options, check_together, option
from spectune.trainers.tasks.task import Batch, TaskOptions, place
from spectune.trainers.tasks.transformer import Block, initialize, inside_width, matrix, rotary_angles

EMBEDDING_STD = 0.02
LARGEST_STEP = 2**24  # tokens
LARGEST_MODEL = 4 * 10**9  # parameters


@dataclass(frozen=True)
class LanguageModel(TaskOptions):
    """Predict the next byte or token."""

    width: int = option(64, "Size of the residual stream, a multiple of twice the heads.", at_least=1, at_most=8192)
    depth: int = option(2, "Blocks.", at_least=1, at_most=96)
    heads: int = option(4, "Attention heads.", at_least=1, at_most=128)
    context: int = option(64, "Bytes or tokens of a window.", at_least=1, at_most=32_768)
    batch_size: int = option(16, "Windows of a batch.", at_least=1, at_most=65_536)
    feed_forward: Literal["swiglu", "gelu"] = option(
        "swiglu", "swiglu (three matrices, 8/3 width inside) or gelu (two, 4 width inside)."
    )
    feed_forward_width: int | None = option(
        None, "Width inside the feed-forward network; null for the usual.", at_least=1, at_most=65_536
    )
    rope_base: float = option(10_000.0, "Base of the rotary positions' wavelengths.", above=1.0, at_most=1e9)
    tied_embeddings: bool = option(False, "Whether the head is the embedding.")
    vocabulary: int | None = option(
        None, "Rows of the embedding; null for as many as the corpus has.", at_least=2, at_most=1_048_576
    )
    corpus: str | None = option(
        None, "A folder of text or of token shards (.bin); null for the Python standard library's sources."
    )
    corpus_fingerprint: str | None = option(None, "What the corpus must be; filled in when a campaign is submitted.")
    validation_batches: int = option(
        8, "Batches of fixed windows, spread evenly over the validation split.", at_least=1, at_most=10_000
    )

    name: ClassVar[str] = "language_model"

    @property
    def items_per_step(self) -> int:
        """Bytes or tokens predicted."""
        return self.batch_size * self.context

    def check(self) -> None:
        """Refuse impossible sizes, and a corpus that is missing, smaller than one window, or not the one pinned."""
        check_options(self)
        if self.width % (2 * self.heads):
            raise TaskOptionError("width", f"must be a multiple of {2 * self.heads}, twice the heads", self.width)
        tokens = self.batch_size * self.context
        check_together("batch_size", self.batch_size, tokens, at_most=LARGEST_STEP, words="tokens of a batch")
        check_together("width", self.width, self._num_entries(), at_most=LARGEST_MODEL, words="parameters")
        if self.corpus == "":
            raise TaskOptionError("corpus", "must name a folder, or be null", self.corpus)
        try:
            listing = list_corpus(self._folder())
            fingerprint = self.corpus_fingerprint and read_corpus(self._folder()).fingerprint
        except CorpusError as error:
            raise TaskOptionError("corpus", error.message, str(error.path)) from error
        if min(listing.num_tokens) <= self.context:
            message = f"the smaller split has {min(listing.num_tokens)} {listing.unit}"
            raise TaskOptionError("corpus", f"{message}, a window needs {self.context + 1}", self.corpus)
        if fingerprint != self.corpus_fingerprint:
            message = f"has changed: fingerprint {fingerprint}, this was made with {self.corpus_fingerprint}"
            raise TaskOptionError("corpus", message, self.corpus)
        self._check_vocabulary(listing.vocabulary)

    def pinned(self) -> LanguageModel:
        """Return the task with its corpus's fingerprint."""
        try:
            return dataclasses.replace(self, corpus_fingerprint=corpus_fingerprint(self._folder()))
        except CorpusError as error:
            raise TaskOptionError("corpus", error.message, str(error.path)) from error

    def build(self, generator: torch.Generator) -> Decoder:
        """Make the decoder; what its layers draw for themselves is thrown away, and torch's own stream put back."""
        with torch.random.fork_rng(devices=[]):
            decoder = Decoder(self, self.vocabulary or vocabulary_of(self._folder()) or 0)
        small = ("embedding.", "head.")
        initialize(decoder, generator, depth=self.depth, small=small, std=EMBEDDING_STD)
        return decoder

    def batch(self, step: int, seed: int) -> Batch:
        """Return (tokens, next tokens), int64 (batch_size, context), of windows anywhere in the training split."""
        train = self._corpus().train
        generator = generator_for("language_model", seed, step)
        starts = torch.randint(train.num_windows(self.context + 1), (self.batch_size,), generator=generator)
        return self._windows(train, starts)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross entropy in nats per byte or token."""
        inputs, targets = batch
        return functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    def measure(self, model: nn.Module, seed: int) -> dict[str, Tensor]:
        """Measure the same validation windows each time, whatever the seed."""
        losses = [self.loss(model, place(batch, model)) for batch in self._validation_windows()]
        return {"validation_loss": torch.stack(losses).double().mean()}

    def _validation_windows(self) -> Iterator[Batch]:
        validation = self._corpus().validation
        last, count = validation.num_windows(self.context + 1) - 1, self.validation_batches * self.batch_size
        starts = torch.arange(count) * last // max(count - 1, 1)
        for some in starts.view(self.validation_batches, self.batch_size):
            yield self._windows(validation, some)

    def _windows(self, tokens: Tokens, starts: Tensor) -> Batch:
        windows = tokens.windows(starts, self.context + 1)
        if self.vocabulary is not None and int(windows.max()) >= self.vocabulary:
            raise TaskOptionError("vocabulary", f"the corpus has a token {int(windows.max())}", self.vocabulary)
        return windows[:, :-1], windows[:, 1:]

    def _check_vocabulary(self, of_corpus: int | None) -> None:
        if of_corpus is None and self.vocabulary is None:
            raise TaskOptionError("vocabulary", "needed: the shards' folder has no manifest that says it", None)
        if of_corpus is not None and self.vocabulary is not None and self.vocabulary < of_corpus:
            raise TaskOptionError("vocabulary", f"must be at least {of_corpus}, the corpus's", self.vocabulary)
        for _ in self._validation_windows() if of_corpus is None else ():
            pass  # each looks for tokens beyond the vocabulary

    def _num_entries(self) -> int:
        inside = self.feed_forward_width or inside_width(self.feed_forward, self.width)
        block = 4 * self.width + (3 if self.feed_forward == "swiglu" else 2) * inside
        return self.width * (self.depth * block + 2 * (self.vocabulary or 0))

    def _folder(self) -> Path | None:
        return None if self.corpus is None else Path(self.corpus)

    def _corpus(self) -> Corpus:
        try:
            return read_corpus(self._folder())
        except CorpusError as error:
            raise TaskOptionError("corpus", error.message, str(error.path)) from error


class Decoder(nn.Module):
    """The transformer: tokens (batch, context) to logits (batch, context, vocabulary)."""

    rotations: Tensor

    def __init__(self, task: LanguageModel, vocabulary: int) -> None:
        super().__init__()
        inside = task.feed_forward_width or inside_width(task.feed_forward, task.width)
        self.embedding = nn.Embedding(vocabulary, task.width)
        self.blocks = nn.ModuleList(
            Block(task.width, task.heads, task.feed_forward, inside, causal=True) for _ in range(task.depth)
        )
        self.norm = nn.RMSNorm(task.width)
        self.head = matrix(task.width, vocabulary)
        if task.tied_embeddings:
            self.head.weight = self.embedding.weight
        rotations = rotary_angles(task.context, task.width // task.heads, task.rope_base)
        self.register_buffer("rotations", rotations, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits of each position's next token."""
        stream = self.embedding(inputs)
        for block in self.blocks:
            stream = block(stream, self.rotations)
        logits: Tensor = self.head(self.norm(stream))
        return logits
