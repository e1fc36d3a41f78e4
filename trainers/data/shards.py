"""Token shards: `.bin` files as llm.c and modded-nanogpt write and read them.

A shard is 256 little-endian int32 (the magic number 20240520, the version 1, the number of tokens, zeros), then the
tokens as little-endian uint16. Shards with "val" in their name are the validation split, the others the training split.
A `manifest.json` beside them, written by `spectune corpus build`, says what the tokens are, and every shard's checksum.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectune.trainers.data.text import CorpusError

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 256 * 4
LARGEST_VOCABULARY = 1 << 16
MANIFEST = "manifest.json"
_SAMPLED_BYTES = 1 << 20


@dataclass(frozen=True)
class Shards:
    """The shards of a folder by split, each with its number of tokens, in the order of their names."""

    train: tuple[tuple[Path, int], ...]
    validation: tuple[tuple[Path, int], ...]
    vocabulary: int | None


def is_sharded(folder: Path) -> bool:
    """Return whether a folder holds token shards."""
    try:
        return any(path.suffix == ".bin" for path in folder.iterdir()) if folder.is_dir() else False
    except OSError as error:
        raise CorpusError(f"cannot be read ({error.strerror})", folder) from error


def header(num_tokens: int) -> bytes:
    """Write a shard's header."""
    words = np.zeros(256, dtype="<i4")
    words[:3] = (MAGIC, VERSION, num_tokens)
    return words.tobytes()


def list_shards(folder: Path) -> Shards:
    """List the shards of a folder, their headers and lengths checked.

    Raises:
        CorpusError: A shard is damaged or of another kind, differs from the manifest, or a split has none.
    """
    sized = [(path, num_tokens(path)) for path in sorted(folder.glob("*.bin"))]
    validation = tuple(entry for entry in sized if "val" in entry[0].stem)
    train = tuple(entry for entry in sized if "val" not in entry[0].stem)
    for split, name in ((train, "training shard"), (validation, "validation shard ('val' in its name)")):
        if not split:
            raise CorpusError(f"there is no {name}", folder)
    manifest = _manifest(folder)
    if manifest is None:
        return Shards(train, validation, None)
    told = {str(entry["name"]): entry["tokens"] for entry in manifest["shards"]}
    for path, size in sized:
        if told.pop(path.name, None) != size:
            raise CorpusError(f"not the shard that {MANIFEST} tells of", path)
    if told:
        raise CorpusError(f"missing, {MANIFEST} tells of it", folder / min(told))
    return Shards(train, validation, int(manifest["vocabulary"]))


def num_tokens(path: Path) -> int:
    """Read how many tokens a shard has.

    Raises:
        CorpusError: It is no shard, of another version, or its length is not what its header says.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
        num_bytes = path.stat().st_size
    except OSError as error:
        raise CorpusError(f"cannot be read ({error.strerror})", path) from error
    words = np.frombuffer(head[: len(head) // 4 * 4], dtype="<i4")
    if len(words) < 256 or words[0] != MAGIC:
        found = int(words[0]) if len(words) else "nothing"
        raise CorpusError(f"no token shard: a shard starts with {MAGIC}, this file with {found}", path)
    if words[1] != VERSION:
        raise CorpusError(f"a shard of version {words[1]}, only version {VERSION} (uint16) can be read", path)
    if num_bytes != HEADER_BYTES + 2 * int(words[2]):
        message = f"its header promises {words[2]} tokens of 2 bytes, {num_bytes - HEADER_BYTES} bytes follow"
        raise CorpusError(message, path)
    return int(words[2])


def map_shard(path: Path) -> Tensor:
    """Map a shard's tokens into memory, as int16 that stands for uint16, which torch can hardly index."""
    tokens = np.memmap(path, dtype=np.int16, mode="c", offset=HEADER_BYTES)  # "c": see text.py
    return torch.from_numpy(tokens)


def shards_fingerprint(shards: Shards) -> str:
    """Identify shards by name, length, and the first and last MiB of each: reading all would take minutes."""
    fingerprint = hashlib.sha256(b"spectune shards 1")
    for path, size in (*shards.train, *shards.validation):
        fingerprint.update(f"{path.name}:{size}:".encode())
        with path.open("rb") as file:
            fingerprint.update(file.read(_SAMPLED_BYTES))
            file.seek(max(HEADER_BYTES, path.stat().st_size - _SAMPLED_BYTES))
            fingerprint.update(file.read())
    return fingerprint.hexdigest()[:32]


def _manifest(folder: Path) -> Any:
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        usable = all(isinstance(entry["name"], str) for entry in manifest["shards"]) and manifest["vocabulary"] > 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError("not a manifest that `spectune corpus build` wrote", path) from error
    if not usable:
        raise CorpusError("not a manifest that `spectune corpus build` wrote", path)
    return manifest
