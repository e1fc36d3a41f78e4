"""Where a Ray of our own keeps its sessions: a folder of this user alone, with a path short enough for sockets.

A socket's path holds 107 bytes at most, and Ray's session and socket names take 66 of them; the rest is what a folder
such as `/tmp/spectune-1000` and a name in it may have. A longer TMPDIR is not for sockets: they go to `/tmp` then. Ray
opens the folder that it is given to everybody, so it is given one within this one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from spectune.service.errors import SettingsError

LONGEST_PATH: Final = 28  # and a name of eleven in it for the Ray head of a service
_SHORT: Final = "/tmp"
_SESSION: Final = "r-"
_LOCK: Final = "owner.lock"
_VARIABLES: Final = ("RAY_TMPDIR", "TMPDIR")


def ray_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of this user's Ray sessions, which is made if it is not there.

    Raises:
        SettingsError: RAY_TMPDIR or TMPDIR names no folder that can be written, or the folder is somebody else's.
    """
    name = next((each for each in _VARIABLES if environment.get(each)), "TMPDIR")
    asked = environment.get(name) or _SHORT
    if not (os.path.isabs(asked) and os.path.isdir(asked) and os.access(asked, os.W_OK | os.X_OK)):
        raise SettingsError(
            f"{name}: a folder that exists and can be written is needed, by its full path: got {asked!r}"
        )
    folder = Path(asked) / f"spectune-{os.getuid()}"
    if len(os.fsencode(folder)) > LONGEST_PATH:
        folder = Path(_SHORT) / folder.name
    try:
        return _made(folder)
    except OSError as error:
        most = LONGEST_PATH - len(folder.name) - 1
        raise SettingsError(
            f"{name}: Ray's sockets need a folder with a path of at most {most} bytes, and {folder} cannot be used "
            f"({error.strerror}): got {asked!r}"
        ) from error


def _made(folder: Path) -> Path:
    """Make a folder that nobody else can enter; one that lies there is taken only if it is this user's own.

    Raises:
        OSError: It cannot be made, or it is a link, a file, or somebody else's.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise PermissionError(13, "it is not a folder of this user's") from None
    if stat.S_IMODE(folder.lstat().st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


class SessionFolder:
    """The folder of one Ray of our own, which it holds a lock in for as long as its process lives.

    Raises:
        SettingsError: There is no place for it.
    """

    def __init__(self) -> None:
        self.path = ray_folder() / (_SESSION + secrets.token_hex(4))
        self.path.mkdir(mode=0o700)
        self._lock = _locked(self.path / _LOCK)

    def remove(self) -> None:
        """Remove the folder, with the logs of a Ray that has ended."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


def remove_dead_sessions() -> None:
    """Remove the folders of this user's Rays whose processes were killed: those whose lock nobody holds."""
    for path in ray_folder().glob(_SESSION + "*"):
        with suppress(OSError):
            if not (path / _LOCK).exists():  # one that is just being made, or another release's
                continue
            lock = _locked(path / _LOCK)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                lock.close()


def _locked(path: Path) -> IO[bytes] | None:
    """Lock a file until this process ends, however it ends; None if another holds it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
