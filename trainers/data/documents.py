"""Documents to make a corpus of: a folder of text, a file of JSON lines or Parquet; and what turns them to tokens.

A JSON line and a Parquet row hold a document in one column, "text" by default. Documents come in a fixed order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectune.trainers.data.shards import LARGEST_VOCABULARY
from spectune.trainers.data.text import CorpusError, list_text

BYTES = "bytes"
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
_PARQUET_ROWS = 1024


@dataclass(frozen=True)
class Tokenizer:
    """What turns documents into tokens.

    Attributes:
        name: "bytes", or the file's name.
        vocabulary: Tokens are below this.
        separator: The token that stands before each document.
        encode: Gives the tokens of each of some documents.
        sha256: The file's checksum; None for bytes.
    """

    name: str
    vocabulary: int
    separator: int
    encode: Callable[[Sequence[str]], list[np.ndarray]]
    sha256: str | None = None


def tokenizer_from(name: str) -> Tokenizer:
    """Make a tokenizer: "bytes" (256 bytes and a separator), or a local `tokenizer.json` of Hugging Face's tokenizers.

    Raises:
        CorpusError: The file is missing or no tokenizer, has no token that ends a document, or too many tokens.
    """
    if name == BYTES:
        return Tokenizer(BYTES, 257, 256, _bytes)
    path = Path(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"the tokenizer cannot be read ({error.strerror})", path) from error
    loaded = _loaded(content, path)
    vocabulary = max(loaded.get_vocab(with_added_tokens=True).values()) + 1
    if vocabulary > LARGEST_VOCABULARY:
        raise CorpusError(f"the tokenizer has {vocabulary} tokens, a shard's uint16 holds {LARGEST_VOCABULARY}", path)
    separators = [token for token in map(loaded.token_to_id, _ENDS) if token is not None]
    if not separators:
        raise CorpusError(f"the tokenizer has no token that ends a document, as one of {', '.join(_ENDS)}", path)

    def encode(documents: Sequence[str]) -> list[np.ndarray]:
        encoded = loaded.encode_batch(list(documents), add_special_tokens=False)
        return [np.asarray(each.ids, dtype="<u2") for each in encoded]

    return Tokenizer(path.name, vocabulary, separators[0], encode, hashlib.sha256(content).hexdigest())


def _loaded(content: bytes, path: Path) -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise CorpusError(
            "a tokenizer file needs the extra 'tokenizers': pip install 'spectune[tokenizers]'", path
        ) from error
    try:
        return tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises plain Exception
        raise CorpusError(f"not a tokenizer.json ({str(error)[:100]})", path) from error


def _bytes(documents: Sequence[str]) -> list[np.ndarray]:
    encoded = [each.encode("utf-8", "surrogateescape") for each in documents]
    return [np.frombuffer(each, dtype=np.uint8).astype("<u2") for each in encoded]


def documents(source: Path, *, column: str = "text") -> Iterator[tuple[str, int]]:
    """Yield each document, with the bytes of the source read so far.

    Args:
        source: A folder of text or of Parquet files, a file of JSON lines (.jsonl, .ndjson), or a Parquet file.
        column: Where a JSON line or a Parquet row holds its document.

    Raises:
        CorpusError: Naming the file, and the line where there are lines.
    """
    if source.is_dir():
        parquet = sorted(source.glob("*.parquet"))
        return _rows(parquet, column) if parquet else _files(source)
    if source.suffix == ".parquet":
        return _rows([source], column)
    if source.suffix in (".jsonl", ".ndjson"):
        return _lines(source, column)
    message = "neither a folder, nor .jsonl, nor .parquet" if source.exists() else "there is no such file or folder"
    raise CorpusError(message, source)


def num_bytes(source: Path) -> int:
    """Return the bytes that `documents` will read, for a progress bar."""
    if not source.is_dir():
        return source.stat().st_size if source.exists() else 0
    parquet = list(source.glob("*.parquet"))
    return sum(path.stat().st_size for path in parquet) if parquet else sum(list_text(source).num_bytes())


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    listing, done = list_text(folder), 0
    for name in sorted((*listing.train, *listing.validation)):
        content = (folder / name).read_bytes()
        done += len(content)
        yield content.decode("utf-8", "surrogateescape"), done


def _lines(path: Path, column: str) -> Iterator[tuple[str, int]]:
    done = 0
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            done += len(line)
            if line.strip():
                yield _document(line, path, number, column), done


def _document(line: bytes, path: Path, number: int, column: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise CorpusError(f"line {number} is no JSON", path) from error
    text = row.get(column) if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise CorpusError(f"line {number} has no text under {column!r}", path)
    return text


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise CorpusError(f"cannot be read ({error.strerror})", path) from error


def _rows(paths: Sequence[Path], column: str) -> Iterator[tuple[str, int]]:
    import pyarrow
    from pyarrow import parquet

    done = 0
    for path in paths:
        try:
            file = parquet.ParquetFile(path)
            if column not in file.schema_arrow.names:
                raise CorpusError(f"has no column {column!r}, but {', '.join(file.schema_arrow.names)}", path)
            share = path.stat().st_size / max(file.metadata.num_rows, 1)
            read = 0
            for batch in file.iter_batches(_PARQUET_ROWS, columns=[column]):
                for text in batch.column(0).to_pylist():
                    if not isinstance(text, str):
                        raise CorpusError(f"row {read} has no text under {column!r}", path)
                    read += 1
                    yield text, done + round(share * read)
        except (pyarrow.ArrowException, OSError) as error:
            raise CorpusError(f"not a Parquet file that can be read ({str(error)[:100]})", path) from error
        done += path.stat().st_size
