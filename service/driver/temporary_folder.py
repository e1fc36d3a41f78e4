"""Where a Ray of our own keeps its sessions: a folder of this user alone, with a path short enough for sockets.

A socket's path holds 107 bytes at most, and Ray's session and socket names take 66 of them; the rest is what a folder
such as `/tmp/spectune-1000` and a name in it may have. A longer TMPDIR is not for sockets: they go to `/tmp` then. Ray
opens the folder that it is given to everybody, so it is given one within this one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from service.errors import SettingsError

LONGEST_PATH: Final = 28  # and a name of eleven in it for the Ray head of a service
_SHORT: Final = "/tmp"
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
