"""The spool: what a driver has decided, on disk before anybody acts on it.

A driver appends every batch of records (new trials, observations, changes of state) to its attempt's spool and forces
it to disk before the verdict goes out; a writer moves the spool to the ledger behind it. Whatever dies in between, the
next attempt reads the spool and imports what the ledger does not hold yet.

One entry is one line, `CRC32 position JSON`. Positions count from 1 without gaps. A last line that is torn (no
newline, or a wrong checksum at the very end) was never acted on and is dropped. A line that is damaged anywhere else is
read as a record of the kind `damaged`, which the ledger sets aside with its reason: the entries around it still count.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

Record = dict[str, Any]
DAMAGED: Final = "damaged"
_SHOWN_BYTES: Final = 200


class Spool:
    """Appends to one attempt's spool file; only one process may hold it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._position = _cut_torn_tail(path)
        self._file = path.open("ab", buffering=0)
        _sync_folder(path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def append(self, records: Sequence[Record]) -> int:
        """Write records as one batch and force them to disk.

        Args:
            records: JSON-plain mappings; numbers must be finite (`campaign.numbers` names the others).

        Returns:
            The position of the last entry, also where `records` is empty.

        Raises:
            OSError: The disk refused; nothing of the batch counts as written.
        """
        start, end = self._position, self._file.seek(0, os.SEEK_END)
        lines = [_line(start + offset, record) for offset, record in enumerate(records, start=1)]
        try:
            self._write(b"".join(lines))
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), end)
            raise
        self._position = start + len(records)
        return self._position

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Close the file; what was appended stays."""
        self._file.close()


def read(path: Path, *, after: int = 0) -> Iterator[tuple[int, Record]]:
    """Read the entries of a spool whose position is greater than `after`.

    Args:
        path: The spool file; a missing one has no entries.
        after: The last position that is known already.

    Yields:
        Pairs of position and record, in order; a damaged line counts as one.
    """
    for position, record, _ in _entries(path):
        if position > after:
            yield position, record


def _line(position: int, record: Record) -> bytes:
    body = f"{position} {json.dumps(record, separators=(',', ':'), allow_nan=False)}".encode()
    return b"%08x " % zlib.crc32(body) + body + b"\n"


def _entries(path: Path) -> Iterator[tuple[int, Record, int]]:
    """Yield position, record and the offset just behind the entry; stop before a torn tail."""
    if not path.exists():
        return
    offset, last = 0, 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for line in file:
            offset += len(line)
            found = _read_line(line, after=last)
            if found is None and offset == size:
                return
            position, record = found or (last + 1, _damaged(offset - len(line), repr(line[:_SHOWN_BYTES])))
            if position > last + 1:
                yield (
                    last + 1,
                    _damaged(offset - len(line), f"no entries {last + 1} to {position - 1}"),
                    offset - len(line),
                )
            yield position, record, offset
            last = position


def _read_line(line: bytes, *, after: int) -> tuple[int, Record] | None:
    """Read an entry's position and record; None if the line is torn or damaged."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    number, _, text = body.partition(b" ")
    try:
        position, record = int(number), json.loads(text)
    except (ValueError, RecursionError):
        return None
    return (position, record) if position > after else None


def _damaged(at_byte: int, found: str) -> Record:
    return {"kind": DAMAGED, "at_byte": at_byte, "found": found}


def _cut_torn_tail(path: Path) -> int:
    """Drop a torn last entry, so that the next one starts on a line of its own; return the last position."""
    whole = [(position, end) for position, _, end in _entries(path)]
    position, end = whole[-1] if whole else (0, 0)
    if path.exists() and path.stat().st_size > end:
        os.truncate(path, end)
    return position


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
