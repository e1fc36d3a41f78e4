"""Corpora: text or token shards behind one face, as windows of tokens.

A folder with a `.bin` file at its top holds token shards, any other one text; without a folder it is Python's own
sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from spectune.trainers.data.shards import is_sharded, list_shards, map_shard, shards_fingerprint
from spectune.trainers.data.text import CorpusError, cache_folder, list_text, read_text, text_fingerprint

__all__ = ["Corpus", "CorpusError", "CorpusSummary", "Tokens", "corpus_fingerprint", "list_corpus", "read_corpus"]

NUM_BYTES = 256


@dataclass(frozen=True)
class CorpusSummary:
    """What a corpus holds, as far as one knows without reading it.

    Attributes:
        num_tokens: Of the longest piece of the training and of the validation split.
        vocabulary: How many different tokens there may be; None where nothing says it.
        unit: What a token is called.
    """

    num_tokens: tuple[int, int]
    vocabulary: int | None
    unit: str


class Tokens:
    """The tokens of a split: pieces that windows do not cross.

    Args:
        pieces: One-dimensional, uint8, or int16 that stands for uint16.
    """

    def __init__(self, pieces: Sequence[Tensor]) -> None:
        self.pieces = tuple(pieces)

    def __len__(self) -> int:
        return sum(len(piece) for piece in self.pieces)

    def num_windows(self, length: int) -> int:
        """Count the places where a window of `length` tokens can start."""
        return sum(self._places(length))

    def windows(self, starts: Tensor, length: int) -> Tensor:
        """Return windows by the number of their place: (len(starts),) to (len(starts), length), int64."""
        ends = torch.tensor(self._places(length)).cumsum(0)
        owners = torch.searchsorted(ends, starts, right=True)
        out = torch.empty(len(starts), length, dtype=torch.int64)
        for index in sorted(set(owners.tolist())):
            mine = owners == index
            first = starts[mine] - (ends[index - 1] if index else 0)
            out[mine] = self.pieces[index][first[:, None] + torch.arange(length)].long() & 0xFFFF
        return out

    def _places(self, length: int) -> list[int]:
        return [max(len(piece) - length + 1, 0) for piece in self.pieces]


@dataclass(frozen=True)
class Corpus:
    """A corpus ready to use, backed by files that processes share."""

    train: Tokens
    validation: Tokens
    fingerprint: str


def list_corpus(folder: Path | None) -> CorpusSummary:
    """Look at a corpus without reading more than the head of each file.

    Raises:
        CorpusError: It cannot be used; the message names the folder or the file.
    """
    if folder is None or not is_sharded(folder):
        return CorpusSummary(list_text(folder).num_bytes(), NUM_BYTES, "bytes")
    shards = list_shards(folder)
    longest = max(size for _, size in shards.train), max(size for _, size in shards.validation)
    return CorpusSummary(longest, shards.vocabulary, "tokens")


def vocabulary_of(folder: Path | None) -> int | None:
    """Return how many different tokens a corpus can have; None where its shards do not say it.

    Raises:
        CorpusError: As `list_corpus`, for shards; a folder of text is not looked at.
    """
    return NUM_BYTES if folder is None or not is_sharded(folder) else list_shards(folder).vocabulary


def read_corpus(folder: Path | None) -> Corpus:
    """Map a corpus into memory. One process reads it once: later changes are seen by the next process.

    Raises:
        CorpusError: As `list_corpus`.
    """
    return _read(folder, cache_folder())


def corpus_fingerprint(folder: Path | None) -> str:
    """Return what identifies a corpus's content, as it is now, without building anything.

    Raises:
        CorpusError: As `list_corpus`.
    """
    if folder is None or not is_sharded(folder):
        return text_fingerprint(folder)
    return shards_fingerprint(list_shards(folder))


@lru_cache(maxsize=8)
def _read(folder: Path | None, _cache: Path) -> Corpus:
    if folder is None or not is_sharded(folder):
        text = read_text(folder)
        return Corpus(Tokens([text.train]), Tokens([text.validation]), text.fingerprint)
    shards = list_shards(folder)
    train, validation = (Tokens([map_shard(path) for path, _ in split]) for split in (shards.train, shards.validation))
    return Corpus(train, validation, shards_fingerprint(shards))
