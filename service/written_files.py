"""How files are written: whole or not at all, and outputs for a user through links, into pipes and devices."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from spectune.service.errors import OutputError

_STREAMS = (1, 2)  # standard output and standard error, which a path such as /dev/stdout may name


def write_whole(path: Path, content: str | bytes, *, mode: int | None = None) -> None:
    """Write a file so that a reader finds all of it, or the one before, also after a crash.

    Args:
        path: A name in a folder that exists; a link there is replaced.
        content: Text is written as UTF-8.
        mode: The permissions; by default those of any new file of this process.

    Raises:
        OSError: The disk refused; what was there before is untouched.
    """
    draft = path.with_name(f".{path.name[:200]}.{os.getpid()}")
    try:
        with _created(draft, mode) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_output(path: Path, content: bytes, *, name: str) -> None:
    """Write a file that a user asked for: where a link points, into a pipe or device, else whole or not at all.

    A file with several names is written in place, so that all of them show what is new.

    Args:
        path: The user's.
        content: All of it.
        name: What it is, for the message: "the bundle".

    Raises:
        OutputError: It cannot be written, or a folder or a socket stands there.
    """
    try:
        _write_output(path, content)
    except (OSError, ValueError) as error:  # a null character in a path is a ValueError
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise OutputError(f"{name} cannot be written ({reason}): got {str(path)!r}") from error


def _write_output(path: Path, content: bytes) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:  # also at the end of a link that points to nothing yet
        write_whole(Path(os.path.realpath(path)), content)
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "a folder stands there")
    for stream in _STREAMS:
        if _is_open_as(stream, status):
            _write_all(stream, content)
            return
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        target = Path(os.path.realpath(path))
        if not os.access(target, os.W_OK):
            raise PermissionError(13, "the file may not be written")
        write_whole(target, content, mode=stat.S_IMODE(status.st_mode))
        return
    with path.open("wb") as file:  # a pipe, a device, a file with several names; a socket refuses to be opened
        file.write(content)


@contextmanager
def _created(path: Path, mode: int | None) -> Iterator[IO[bytes]]:
    """Create a file anew; whatever lies there was left by a process of this id that is gone."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if mode is None else 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if mode is not None:
            os.fchmod(descriptor, mode)
        yield file


def _is_open_as(stream: int, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(stream), status)
    except OSError:  # it is closed
        return False


def _write_all(stream: int, content: bytes) -> None:
    for each in (sys.stdout, sys.stderr):
        each.flush()
    view = memoryview(content)
    while view:
        view = view[os.write(stream, view) :]
