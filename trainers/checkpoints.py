"""Checkpoints: the states of the trials in one slot, in one file whose every entry is either whole or refused.

A file is a zip archive, stored without compression, with an entry `trial-<number>/step-<step>` for each trial: the
SHA-256 of the payload, then the payload, `torch.save` of tensors and plain values, read with `weights_only=True`, so
that loading one never runs code. It is written under a temporary name, forced to disk and renamed: a crash at any
moment leaves the file before it.

Files lie at `<root>/<attempt>/<slot>/<number>.ckpt`, and a slot writes into its own folder only. Training is a function
of setting and step, so of all the states that are found of a trial, the one with the most steps is the best.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_DIGEST_BYTES = hashlib.sha256().digest_size
_FILE_NAME = re.compile(r"\d{10}\.ckpt")
_ENTRY_NAME = re.compile(r"trial-(\d+)/step-(\d+)")
_PARTIAL = ".partial"

State = dict[str, Any]


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or used; the message names the file or the entry."""


@dataclass(frozen=True)
class Latest:
    """What was found of a trial.

    Attributes:
        path: The file with its latest whole state, None where there is none.
        state: That state.
        refused: Why each file that may hold a later one was passed over.
    """

    path: Path | None
    state: State | None
    refused: tuple[CheckpointError, ...]


class Shelf:
    """All checkpoints below a root, as they were when this was made; only their tables of contents are read at first.

    Args:
        root: Where `<attempt>/<slot>` folders are; need not exist.
    """

    def __init__(self, root: Path) -> None:
        self._steps: dict[int, list[tuple[int, Path]]] = {}
        self._unreadable: list[CheckpointError] = []
        for path in sorted(root.glob("*/*/*.ckpt"), reverse=True):
            try:
                for trial, step in contents(path).items():
                    self._steps.setdefault(trial, []).append((step, path))
            except CheckpointError as error:
                self._unreadable.append(error)

    def latest(self, trial: int) -> Latest:
        """Read the state with the most steps that is whole."""
        refused = list(self._unreadable)
        for _, path in sorted(self._steps.get(trial, ()), key=lambda entry: -entry[0]):
            try:
                return Latest(path, load(path, trial), tuple(refused))
            except CheckpointError as error:
                refused.append(error)
        return Latest(None, None, tuple(refused))


def path_of(folder: Path, number: int) -> Path:
    """Return the path of a slot's checkpoint."""
    return folder / f"{number:010d}.ckpt"


def save(folder: Path, number: int, states: Mapping[int, Mapping[str, Any]]) -> Path:
    """Write the states of a slot's trials, durably and at once; an existing file of this number is replaced.

    Args:
        folder: The slot's; made if missing.
        number: Rises from one checkpoint of a slot to the next.
        states: For each trial, dictionaries, lists and tuples of tensors and plain values, with its steps at "step".

    Returns:
        The file written.

    Raises:
        CheckpointError: A state holds something else.
        OSError: The disk refused; the file that was there before is untouched.
    """
    for state in states.values():
        check_state(state)
    path = path_of(folder, number)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
    try:
        _write(partial, states)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(folder)
    return path


def check_state(state: Mapping[str, Any]) -> None:
    """Refuse a state of which a part could not be read back.

    Raises:
        CheckpointError: It names the part and its type.
    """
    _refuse_objects(state, "state")


def contents(path: Path) -> dict[int, int]:
    """Return which trials a checkpoint holds, and the steps of each.

    Raises:
        CheckpointError: The file is missing, or torn or damaged where it can be seen without reading all of it.
    """
    with _opened(path) as archive:
        return {int(trial): int(step) for trial, step in _entries(archive)}


def load(path: Path, trial: int) -> State:
    """Read one trial's state onto the CPU.

    Raises:
        CheckpointError: The file is missing, torn or damaged, or does not hold the trial; the message names it.
    """
    with _opened(path) as archive:
        steps = [step for number, step in _entries(archive) if int(number) == trial]
        if not steps:
            raise CheckpointError(f"the checkpoint {str(path)!r} does not hold the trial: got {trial}")
        content = _read(archive, f"trial-{trial}/step-{steps[0]}", path)
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != bytes(digest):
        raise CheckpointError(f"damaged checkpoint, the checksum of trial {trial} is wrong: got {str(path)!r}")
    state: State = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return state


def copied(value: Any) -> Any:
    """Copy nested mappings and sequences, tensors to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copied(entry) for entry in value)
    return value


def prune(folder: Path, *, keep: int = 2) -> None:
    """Delete all but a slot's newest checkpoints, and what interrupted writes left; one process writes here."""
    assert keep >= 1
    if not folder.is_dir():
        return
    ours = sorted((path for path in folder.iterdir() if _FILE_NAME.fullmatch(path.name)), reverse=True)
    for path in [*ours[keep:], *folder.glob(f".*.ckpt.*{_PARTIAL}")]:
        path.unlink(missing_ok=True)


def _write(path: Path, states: Mapping[int, Mapping[str, Any]]) -> None:
    with path.open("xb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for trial, state in states.items():
                payload = io.BytesIO()
                torch.save(state, payload)
                digest = hashlib.sha256(payload.getbuffer()).digest()
                with archive.open(f"trial-{trial}/step-{state['step']}", "w", force_zip64=True) as entry:
                    entry.write(digest)
                    entry.write(payload.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint ({error.strerror}): got {str(path)!r}") from error
    except Exception as error:  # a damaged table of contents raises whatever its bytes happen to mean
        raise CheckpointError(f"not a checkpoint, torn or damaged: got {str(path)!r}") from error


def _entries(archive: zipfile.ZipFile) -> Iterable[tuple[str, str]]:
    matches = (_ENTRY_NAME.fullmatch(name) for name in archive.namelist())
    return [(match[1], match[2]) for match in matches if match is not None]


def _read(archive: zipfile.ZipFile, name: str, path: Path) -> memoryview:
    try:
        return memoryview(archive.read(name))
    except Exception as error:  # as above
        raise CheckpointError(f"torn or damaged checkpoint at {name}: got {str(path)!r}") from error


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
