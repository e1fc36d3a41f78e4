"""Making a corpus: documents to token shards with a manifest, in a folder that is whole or not there.

Each document is preceded by the tokenizer's separator. It belongs to the validation split when the hash of its text
falls into the share asked for, so equal documents are never in both; if a split stays empty the build is refused.
Everything is written to a folder beside the wanted one, forced to disk, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedRandom
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from spectune.trainers.data.documents import Tokenizer, documents
from spectune.trainers.data.shards import HEADER_BYTES, MANIFEST, header
from spectune.trainers.data.text import CorpusError

SHARD_TOKENS = 100_000_000
VALIDATION_SHARE = 0.1
_DOCUMENTS_AT_ONCE = 256


@dataclass(frozen=True)
class BuiltCorpus:
    """What was made."""

    folder: Path
    documents: int
    train_tokens: int
    validation_tokens: int
    vocabulary: int


def build_corpus(
    source: Path,
    tokenizer: Tokenizer,
    out: Path,
    *,
    column: str = "text",
    validation_share: float = VALIDATION_SHARE,
    shard_tokens: int = SHARD_TOKENS,
    on_progress: Callable[[int], None] = lambda _: None,
) -> BuiltCorpus:
    """Write the shards of a corpus.

    Args:
        source: As for `documents`.
        tokenizer: What makes tokens.
        out: The folder to make; must not exist.
        column: Where a JSON line or Parquet row holds its document.
        validation_share: The share of documents that is held out.
        shard_tokens: Tokens of a shard, the last of a split excepted.
        on_progress: Told the bytes of the source read so far.

    Raises:
        CorpusError: The source, the tokenizer's file or `out` cannot be used; nothing is left behind.
    """
    out = Path(os.path.realpath(out))  # a link that points to nothing yet says where the folder is to be
    if os.path.lexists(out):
        raise CorpusError("exists already; name a new folder", out)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        splits = {name: _Split(partial, name, shard_tokens) for name in ("train", "val")}
        count = 0
        for some in _grouped(documents(source, column=column)):
            texts = [text for text, _ in some]
            for text, tokens in zip(texts, tokenizer.encode(texts), strict=True):
                splits[_split_of(text, validation_share)].add(np.append(np.uint16(tokenizer.separator), tokens))
            count += len(some)
            on_progress(some[-1][1])
        built = _finish(splits, tokenizer, source, count, partial)
        os.rename(partial, out)
    except OSError as error:
        raise CorpusError(f"cannot be written ({error.strerror})", out) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return BuiltCorpus(out, count, built["train"], built["val"], tokenizer.vocabulary)


class _Split:
    """The shards of one split, being written."""

    def __init__(self, folder: Path, name: str, shard_tokens: int) -> None:
        self.shards: list[dict[str, Any]] = []
        self.tokens = 0
        self._folder, self._name, self._shard_tokens = folder, name, shard_tokens
        self._file: BufferedRandom | None = None
        self._room = 0

    def add(self, tokens: np.ndarray) -> None:
        """Append tokens, on to as many shards as they need."""
        while len(tokens):
            if self._file is None:
                self._file = (self._folder / f"{self._name}_{len(self.shards):06d}.bin").open("w+b")
                self._file.write(header(0))
                self._room = self._shard_tokens
            taken, tokens = tokens[: self._room], tokens[self._room :]
            self._file.write(taken.astype("<u2").tobytes())
            self._room -= len(taken)
            self.tokens += len(taken)
            if not self._room:
                self.close()

    def close(self) -> None:
        """Write the header of the open shard, take its checksum and force it to disk."""
        if self._file is None:
            return
        count = self._shard_tokens - self._room
        self._file.seek(0)
        self._file.write(header(count))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        self.shards.append({"name": Path(self._file.name).name, "tokens": count, "sha256": digest})
        self._file.close()
        self._file = None


def _finish(splits: dict[str, _Split], tokenizer: Tokenizer, source: Path, count: int, partial: Path) -> dict[str, int]:
    for name, split in splits.items():
        split.close()
        if not split.tokens:
            message = f"the {name} split of {count} documents stays empty; more documents or another share are needed"
            raise CorpusError(message, source)
    manifest = {
        "tokenizer": tokenizer.name,
        "tokenizer_sha256": tokenizer.sha256,
        "vocabulary": tokenizer.vocabulary,
        "separator": tokenizer.separator,
        "source": source.name,
        "documents": count,
        "header_bytes": HEADER_BYTES,
        "shards": [shard for split in splits.values() for shard in split.shards],
    }
    with (partial / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    return {name: split.tokens for name, split in splits.items()}


def _split_of(text: str, validation_share: float) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return "val" if int.from_bytes(digest[:8], "big") < validation_share * 2.0**64 else "train"


def _grouped(stream: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    documents = iter(stream)
    while some := list(islice(documents, _DOCUMENTS_AT_ONCE)):
        yield some
