"""Checkpoints: a trial's state in one file that is either whole or refused.

A file is `MAGIC`, the SHA-256 of the payload, then the payload: `torch.save` of tensors and plain values, read with
`weights_only=True`, so that loading one never runs code. It is written under a temporary name, forced to disk and
renamed: a crash at any moment leaves the checkpoint before it.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MAGIC = b"spectune checkpoint 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_HEADER_BYTES = len(MAGIC) + _DIGEST_BYTES
_NAME = re.compile(r"step-(\d{10})\.ckpt")
_PARTIAL = ".partial"

State = dict[str, Any]


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or used; the message names the file or the entry."""


@dataclass(frozen=True)
class Latest:
    """What `latest` found.

    Attributes:
        path: The newest valid checkpoint, None where there is none.
        state: What it holds.
        refused: Why each newer file was passed over, newest first.
    """

    path: Path | None
    state: State | None
    refused: tuple[CheckpointError, ...]


def path_at(folder: Path, step: int) -> Path:
    """Give the path of the checkpoint after `step` steps."""
    return folder / f"step-{step:010d}.ckpt"


def save(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the checkpoint after `step` steps, durably and at once; an existing one is replaced.

    Args:
        folder: Where one trial's checkpoints are; made if missing.
        step: Steps taken.
        state: Dictionaries, lists and tuples of tensors and plain values.

    Returns:
        The file written.

    Raises:
        CheckpointError: The state holds something else.
        OSError: The disk refused; the file that was there before is untouched.
    """
    _refuse_objects(state, "state")
    payload = io.BytesIO()
    torch.save(state, payload)
    path = path_at(folder, step)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
    try:
        _write(partial, payload.getbuffer())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(folder)
    return path


def load(path: Path) -> State:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: The file is missing, torn or damaged; the message names it.
    """
    try:
        content = memoryview(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint ({error.strerror}): got {str(path)!r}") from error
    if bytes(content[: len(MAGIC)]) != MAGIC:
        raise CheckpointError(f"not a checkpoint, or torn: got {str(path)!r}")
    digest, payload = bytes(content[len(MAGIC) : _HEADER_BYTES]), content[_HEADER_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        raise CheckpointError(f"torn or damaged checkpoint, its checksum is wrong: got {str(path)!r}")
    state: State = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return state


def latest(folder: Path) -> Latest:
    """Read the newest valid checkpoint of a folder, passing over damaged ones."""
    refused: list[CheckpointError] = []
    for path in _newest_first(folder):
        try:
            return Latest(path, load(path), tuple(refused))
        except CheckpointError as error:
            refused.append(error)
    return Latest(None, None, tuple(refused))


def prune(folder: Path, *, keep: int = 2) -> None:
    """Delete all but the newest checkpoints, and what interrupted writers left; one process at a time writes here."""
    assert keep >= 1
    for path in [*_newest_first(folder)[keep:], *folder.glob(f".step-*{_PARTIAL}")]:
        path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def _write(path: Path, payload: memoryview) -> None:
    with path.open("xb") as file:
        file.write(MAGIC + hashlib.sha256(payload).digest())
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_objects(value: Any, where: str) -> None:
    """Refuse what could not be read back: exact types only, a subclass would load as something else."""
    if type(value) is dict:
        for key, entry in value.items():
            _refuse_objects(key, f"{where} key")
            _refuse_objects(entry, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, entry in enumerate(value):
            _refuse_objects(entry, f"{where}[{index}]")
    elif type(value) not in (torch.Tensor, int, float, bool, str, type(None)):
        raise CheckpointError(f"{where} must be a tensor or a plain value: got {type(value).__name__}")
