"""Text as bytes: a folder of files, split by file, in one memory-mapped cache file.

Without a folder the corpus is the source of Python's own standard library: real text, about 10 MB, on every machine.

A file belongs to the validation split when the hash of its relative path falls into the lowest tenth. Adding or
removing files never moves another one, unless a split would stay empty: then the file nearest to the border crosses it.

The cache file holds `MAGIC`, the two sizes, then all training and all validation bytes. Its name is a hash of the
contents, it is written under a temporary name and renamed, so that processes may build it at the same time.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MAGIC = b"spectune text 1\n"
_SIZES = struct.Struct("<QQ")
_HEADER_BYTES = len(MAGIC) + _SIZES.size
_VALIDATION_BELOW = 0.1
_SNIFFED_BYTES = 4096
_CHUNK_BYTES = 1 << 20
_NOT_SOURCES = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


class CorpusError(ValueError):
    """A folder that cannot serve as a corpus.

    Attributes:
        message: What is wrong, without the path.
        path: The folder, or the cache file made from it.
    """

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(f"{message}: got {str(path)!r}")
        self.message = message
        self.path = path


@dataclass(frozen=True)
class TextFiles:
    """The files of a corpus by split, as paths relative to `root`, in a fixed order; nothing is read yet."""

    root: Path
    train: tuple[str, ...]
    validation: tuple[str, ...]

    def num_bytes(self) -> tuple[int, int]:
        """Return the bytes of the training and of the validation split, as the file system has them now."""
        return self._sum(self.train), self._sum(self.validation)

    def _sum(self, names: tuple[str, ...]) -> int:
        return sum((self.root / name).stat().st_size for name in names)


@dataclass(frozen=True)
class Text:
    """A corpus ready to use: two uint8 tensors, backed by one file that processes share."""

    train: Tensor
    validation: Tensor
    fingerprint: str


def list_text(folder: Path | None) -> TextFiles:
    """List a corpus without reading more than the head of each file.

    Args:
        folder: Any folder; every regular file below it without a zero byte in its head is text. Hidden files and links
            are left out. None for the standard library's sources.

    Raises:
        CorpusError: The folder is missing or unreadable, or holds fewer than two files of text.
    """
    root = Path(sysconfig.get_paths()["stdlib"]) if folder is None else folder
    try:
        if not root.is_dir():
            raise CorpusError("there is no such folder", root)
        names = sorted(_library_sources(root) if folder is None else _texts(root))
    except OSError as error:
        raise CorpusError(f"cannot be read ({error.strerror})", root) from error
    if len(names) < 2:
        raise CorpusError(f"needs two files of text, one to train and one to validate, has {len(names)}", root)
    return TextFiles(root, *_split(names))


def read_text(folder: Path | None) -> Text:
    """Map a corpus into memory, building its cache file first where there is none.

    One process reads a corpus once: later changes of the folder are not seen until the next process.

    Raises:
        CorpusError: As `list_text`.
    """
    return _read_text(folder, cache_folder())


def text_fingerprint(folder: Path | None) -> str:
    """Return the fingerprint that `read_text` would, from the files as they are now; nothing is written.

    Raises:
        CorpusError: As `list_text`.
    """
    listing = list_text(folder)
    try:
        return _copy(listing, len)[0]
    except OSError as error:
        raise CorpusError(f"cannot be read ({error.strerror})", listing.root) from error


def cache_folder() -> Path:
    """Return where corpora are kept: `SPECTUNE_CACHE_DIR`, else `~/.cache/spectune`."""
    given = os.environ.get("SPECTUNE_CACHE_DIR")
    return Path(given) if given else Path.home() / ".cache" / "spectune"


@lru_cache(maxsize=8)
def _read_text(folder: Path | None, cache: Path) -> Text:
    listing = list_text(folder)
    try:
        fingerprint, *_ = _copy(listing, len)
        path = cache / f"text-{fingerprint}.bin"
        if not path.exists():
            path = _build(listing, cache)
    except OSError as error:
        raise CorpusError(f"cannot be read ({error.strerror})", listing.root) from error
    return _map(path)


def _library_sources(root: Path) -> Iterator[str]:
    """Find the library's modules; a file that cannot be read is left out, its absence shows in the fingerprint."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_SOURCES]
        for path in (Path(folder, name) for name in files if name.endswith(".py")):
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK) and path.stat().st_size:
                yield path.relative_to(root).as_posix()


def _texts(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(folder, name) for name in files if not name.startswith(".")):
            if path.is_file() and not path.is_symlink() and _is_text(path):
                yield path.relative_to(root).as_posix()


def _raise(error: OSError) -> None:
    raise error


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    return bool(head) and b"\0" not in head


def _split(names: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    by_hash = sorted(names, key=_position)
    below = sum(_position(name) < _VALIDATION_BELOW for name in names)
    border = min(max(below, 1), len(names) - 1)
    return tuple(sorted(by_hash[border:])), tuple(sorted(by_hash[:border]))


def _position(name: str) -> float:
    """Return a file's place in [0, 1): a function of its relative path alone."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2.0**64


def _chunks(root: Path, names: tuple[str, ...]) -> Iterator[bytes]:
    for name in names:
        with (root / name).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk


def _copy(listing: TextFiles, write: Callable[[bytes], object]) -> tuple[str, int, int]:
    """Hand all bytes to `write`, training before validation; give their fingerprint and the splits' sizes."""
    fingerprint, sizes = hashlib.sha256(MAGIC), []
    for names in (listing.train, listing.validation):
        split = hashlib.sha256()
        sizes.append(0)
        for chunk in _chunks(listing.root, names):
            split.update(chunk)
            write(chunk)
            sizes[-1] += len(chunk)
        fingerprint.update(split.digest())
    return fingerprint.hexdigest()[:32], sizes[0], sizes[1]


def _build(listing: TextFiles, cache: Path) -> Path:
    """Write the cache file, named after what was really written, should a file have changed meanwhile."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, prefix=".text-", suffix=".partial", delete=False) as file:
        try:
            file.write(MAGIC + _SIZES.pack(0, 0))
            fingerprint, *sizes = _copy(listing, file.write)
            file.seek(len(MAGIC))
            file.write(_SIZES.pack(*sizes))
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            path = cache / f"text-{fingerprint}.bin"
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    return path


def _map(path: Path) -> Text:
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    sizes = _SIZES.unpack_from(header, len(MAGIC)) if len(header) == _HEADER_BYTES else (0, 0)
    if not header.startswith(MAGIC) or path.stat().st_size != _HEADER_BYTES + sum(sizes):
        raise CorpusError("the cache file is damaged, delete it", path)
    # Mode "c" shares the pages and keeps torch content: it refuses to wrap memory that cannot be written to.
    data = torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c", offset=_HEADER_BYTES))
    return Text(data[: sizes[0]], data[sizes[0] :], path.stem.removeprefix("text-"))
