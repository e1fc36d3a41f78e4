"""Reads a ledger in a file without writing anything: also one in a folder, or on a disk, that may only be read.

A database of SQLite whose journal is a log written ahead is not read by just opening it: SQLite wants an index of the
log beside it (`-shm`), and makes one if it can. What is done depends on what lies there:

    no log              nobody has the database open: it is read as a file that does not change (`immutable`), and read
                        again if a log, or another file, is there afterwards
    a log and an index  it is open elsewhere, or its process was killed: it is read beside the log (`mode=ro`)
    a log alone         its machine was switched off: database and log are copied, and the copy is opened
    an older schema     a copy is made and brought up to date; the next command that writes does so with the ledger
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from spectune.service.errors import LedgerError
from spectune.service.ledger.engine import BUSY_TIMEOUT_SECONDS, is_up_to_date
from spectune.service.ledger.ledger import Ledger

_TRIES = 5
_Read = TypeVar("_Read")
_Kind = TypeVar("_Kind", bound=Ledger)


def read_ledger(path: Path, read: Callable[[_Kind], _Read], *, kind: type[_Kind]) -> _Read:
    """Return what a function reads from the ledger in a file; nothing is written beside it.

    Args:
        path: The database file.
        kind: What the ledger is opened as.
        read: Called with the ledger, a second time if a process began to write meanwhile.

    Raises:
        LedgerError: It cannot be read, or is none.
    """
    for tries_left in reversed(range(_TRIES)):
        before = _state(path)
        try:
            with _opened(path, kind) as ledger:
                found = read(ledger)
        except LedgerError:
            if before == _state(path) or not tries_left:
                raise
            continue
        if before == _state(path) or _has_log(path):
            return found
    raise LedgerError(f"the ledger is written all the time and cannot be read: got {path}")


def _state(path: Path) -> tuple[int, int, int, bool]:
    """Return what changes if another process writes a database that was at rest."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size, _has_log(path)


def _has_log(path: Path) -> bool:
    return _beside(path, "-wal").exists()


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


@contextmanager
def _opened(path: Path, kind: type[_Kind]) -> Iterator[_Kind]:
    try:
        if _has_log(path) and not _beside(path, "-shm").exists():
            with _copied(path, shutil.copyfile, kind) as ledger:
                yield ledger
            return
        engine = _engine(path, "mode=ro" if _has_log(path) else "immutable=1")
        try:
            is_current = is_up_to_date(engine)
        except DBAPIError as error:
            engine.dispose()
            raise LedgerError(f"the ledger cannot be opened ({error.orig}): got {path}") from error
        if is_current:
            with kind(engine) as ledger:
                yield ledger
            return
        engine.dispose()
        with _copied(path, _back_up, kind) as ledger:
            yield ledger
    except OSError as error:  # no folder for copies has room
        raise LedgerError(f"the ledger cannot be read ({os.strerror(error.errno or 0)}): got {path}") from error


def _engine(path: Path, how: str) -> Engine:
    address = f"file:{quote(str(path))}?{how}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_SECONDS, check_same_thread=False)

    return create_engine("sqlite://", creator=connect, poolclass=QueuePool)


@contextmanager
def _copied(path: Path, copy: Callable[[Path, Path], object], kind: type[_Kind]) -> Iterator[_Kind]:
    """Open a private copy of a database, with its log if one lies there."""
    with tempfile.TemporaryDirectory(prefix="spectune-ledger-") as folder:
        made = Path(folder) / path.name
        copy(path, made)
        if copy is shutil.copyfile:
            shutil.copyfile(_beside(path, "-wal"), _beside(made, "-wal"))
        with kind.at(made) as ledger:
            yield ledger


def _back_up(path: Path, made: Path) -> None:
    """Copy a database as it is between two transactions."""
    how = "mode=ro" if _has_log(path) else "immutable=1"
    with (
        closing(sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)) as source,
        closing(sqlite3.connect(made)) as target,
    ):
        source.backup(target)
