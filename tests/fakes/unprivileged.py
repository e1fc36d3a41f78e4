"""Code run as a user who may read and not write, also where the tests run as root."""

from __future__ import annotations

import contextlib
import io
import os
import traceback
from collections.abc import Callable
from pathlib import Path

NOBODY = 65534


def forbid_writing(folder: Path) -> None:
    """Take from everybody the permission to write to a folder and what is in it; everybody may read."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def run_unprivileged(function: Callable[[], None]) -> tuple[int, str]:
    """Run a function in a child process without privileges.

    Every module that it needs must be loaded: the child may not be able to read the interpreter's files.

    Returns:
        The child's exit status (1 if the function raised), and what it printed.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        output, status = io.StringIO(), 0
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                function()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            output.write(traceback.format_exc())
            status = 1
        with open(writes, "wb") as file:
            file.write(output.getvalue().encode(errors="replace"))
        os._exit(status)
    os.close(writes)
    with open(reads, "rb") as file:
        told = file.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told
