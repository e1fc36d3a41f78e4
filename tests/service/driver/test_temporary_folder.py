"""Ray's sockets have a short folder of the user's own, or the setting at fault is named at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectune.service.driver import temporary_folder
from spectune.service.driver.temporary_folder import LONGEST_PATH, SessionFolder, ray_folder, remove_dead_sessions
from spectune.service.errors import SettingsError

LONGEST_SOCKET = "/0123456789/session_2026-12-01_10-00-00_123456_1234567/sockets/plasma_store"


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path of its own."""
    made = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    yield made
    made.chmod(0o700)
    shutil.rmtree(made)


def test_a_socket_below_the_longest_folder_has_a_path_that_linux_takes() -> None:
    assert LONGEST_PATH + len(LONGEST_SOCKET) <= 107


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_the_folder_that_is_asked_for_is_used_and_is_private(name: str, short: Path) -> None:
    environment = {name: str(short)}
    folder = ray_folder(environment)
    assert folder == short / f"spectune-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert ray_folder(environment).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_the_mask_for_new_files_does_not_matter(mask: int, short: Path) -> None:
    before = os.umask(mask)
    try:
        assert ray_folder({"TMPDIR": str(short)}).stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


@pytest.mark.parametrize("length", [60, 200])
def test_sockets_do_not_go_into_a_folder_with_a_long_path(
    length: int, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_folder, "_SHORT", str(short))
    long = tmp_path / ("x" * length)
    long.mkdir()
    assert ray_folder({"TMPDIR": str(long)}).parent == short
    assert list(long.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "a file", "relative", "read only"])
@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_that_cannot_be_used_is_refused_with_its_variable(
    kind: str, name: str, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = short / "x"
    if kind == "a file":
        asked.touch()
    elif kind == "read only":
        asked.mkdir()
        monkeypatch.setattr(temporary_folder.os, "access", lambda *_: False)  # root may write anywhere
    text = "." if kind == "relative" else str(asked)
    with pytest.raises(SettingsError, match=f"^{name}: a folder that exists and can be written is needed") as caught:
        ray_folder({name: text})
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("squatter", ["file", "link", "link to a folder", "somebody else's"])
def test_a_folder_that_is_somebody_elses_is_never_used(
    squatter: str, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = short / f"spectune-{os.getuid()}"
    (short / "victim").mkdir(mode=0o755)
    match squatter:
        case "file":
            wanted.touch()
        case "link":
            wanted.symlink_to(short / "nowhere")
        case "link to a folder":
            wanted.symlink_to(short / "victim")
        case _:
            wanted = short / f"spectune-{os.getuid() + 1}"
            wanted.mkdir()
            mine = os.getuid() + 1
            monkeypatch.setattr(temporary_folder.os, "getuid", lambda: mine)
    with pytest.raises(SettingsError, match="it is not a folder of this user's"):
        ray_folder({"TMPDIR": str(short)})
    assert (short / "victim").stat().st_mode & 0o777 == 0o755


def test_a_session_is_removed_when_its_ray_ends_or_its_process_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectune.service.driver.temporary_folder.ray_folder", lambda: tmp_path)
    (tmp_path / "somebody-elses").mkdir()
    (tmp_path / "r-halfmade").mkdir()  # its lock is not there yet
    mine = SessionFolder()
    (mine.path / "session_latest").mkdir()
    script = "import os, sys; sys.path.insert(0, sys.argv[2])\nfrom pathlib import Path\n"
    script += "import spectune.service.driver.temporary_folder as t\nt.ray_folder = lambda: Path(sys.argv[1])\n"
    script += "print(t.SessionFolder().path, flush=True)\nos.kill(os.getpid(), 9)"
    command = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parents[3])]
    killed = Path(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip())
    assert killed.is_dir()
    remove_dead_sessions()
    assert not killed.exists()
    assert mine.path.is_dir(), "its Ray lives"
    mine.remove()
    assert {path.name for path in tmp_path.iterdir()} == {"somebody-elses", "r-halfmade"}
