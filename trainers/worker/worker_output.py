"""What a user's code prints in a worker, kept in a file of the campaign and bounded.

Everything that is written to the process's standard output and error goes there: by Python, by libraries, by child
processes. It is written by the kernel, so a worker that is killed has lost nothing of it. A line that begins with a
record separator names the trials that train from there on; of a file that grows too large, head and tail stay.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

MARK: Final = b"\x1e"
HEAD_BYTES: Final = 1024**2
TAIL_BYTES: Final = 1024**2
MOST_BYTES: Final = 4 * 1024**2
LOOK_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class WorkerOutput:
    """Sends this process's standard output and error to a file.

    Nothing here raises into training: where the disk refuses, output is lost.

    Args:
        path: The file; it is appended to.
    """

    def __init__(self, path: Path) -> None:
        self._named: tuple[int, ...] = ()
        self._file: int | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            _log.warning("what is printed is not kept: got %s", error)
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
                stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a captured stream has no such method
        for number in (1, 2):
            os.dup2(self._file, number)
        threading.Thread(target=self._watch, name="output-watch", daemon=True).start()

    def attribute(self, trials: Sequence[int]) -> None:
        """Say that what is printed from here on is of these trials."""
        named = tuple(trials)
        if self._file is None or named == self._named:
            return
        self._named = named
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        with suppress(OSError):
            os.write(self._file, marker(named))

    def shorten(self) -> None:
        """Keep head and tail of the file if it has grown too large."""
        if self._file is None:
            return
        with suppress(OSError):
            size = os.fstat(self._file).st_size
            if size <= MOST_BYTES:
                return
            tail = os.pread(self._file, TAIL_BYTES, size - TAIL_BYTES)
            os.ftruncate(self._file, HEAD_BYTES)
            left_out = size - HEAD_BYTES - TAIL_BYTES
            os.write(self._file, f"\n[... {left_out} bytes left out ...]\n".encode() + marker(self._named) + tail)

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_SECONDS):
            self.shorten()


def marker(trials: Sequence[int]) -> bytes:
    """Return the line that names the trials of what follows."""
    return b"\n" + MARK + json.dumps({"trials": list(trials)}).encode() + b"\n"
