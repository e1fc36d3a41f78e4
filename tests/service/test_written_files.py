"""Files are written whole, through links, into pipes and devices, and what cannot be written to is refused."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from spectune.service import written_files
from spectune.service.errors import OutputError
from spectune.service.written_files import write_output, write_whole

NEW = b"new \x00 content"


def write(path: Path) -> None:
    write_output(path, NEW, name="the bundle")


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "real.zip", tmp_path / "link.zip"
    target.write_bytes(b"old")
    link.symlink_to(Path("elsewhere/real.zip"))
    write(link)
    assert link.is_symlink()
    assert target.read_bytes() == NEW
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["elsewhere", "link.zip", "real.zip"]


def test_a_link_that_points_to_nothing_yet_says_where_the_file_is_to_be(tmp_path: Path) -> None:
    (tmp_path / "first").symlink_to(tmp_path / "second")
    (tmp_path / "second").symlink_to(tmp_path / "real.zip")
    write(tmp_path / "first")
    assert (tmp_path / "real.zip").read_bytes() == NEW
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()


def test_a_file_keeps_its_permissions_and_all_its_names(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"old")
    file.chmod(0o640)
    write(file)
    assert file.stat().st_mode & 0o777 == 0o640
    os.link(file, other)
    write_output(file, b"newer", name="the page")
    assert other.read_bytes() == b"newer"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write(pipe)
    reader.join()
    assert found == [NEW]
    assert pipe.is_fifo()


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output_is_written_to_after_what_was_printed(path: str, kind: str, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom spectune.service.written_files import write_output\n"
        f"print('before')\nwrite_output(Path({path!r}), b'content\\n', name='the page')\nprint('after')\n"
    )
    if kind == "pipe":
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    else:
        (tmp_path / "out").write_bytes(b"kept\n")
        with (tmp_path / "out").open("ab") as file:
            subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
        told = (tmp_path / "out").read_bytes().removeprefix(b"kept\n")
    assert told == b"before\ncontent\nafter\n"


def test_a_device_is_written_to() -> None:
    write(Path("/dev/null"))
    with pytest.raises(OutputError, match="No space left on device"):
        write(Path("/dev/full"))


def test_what_cannot_be_written_to_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "to-folder").symlink_to(tmp_path / "folder")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("folder", "to-folder", "loop", "file/x", "missing/x", "socket", "nul\x00", "y" * 300):
            with pytest.raises(OutputError, match="the bundle cannot be written") as caught:
                write(tmp_path / name)
            assert repr(str(tmp_path / name)) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "loop", "socket", "to-folder"]


def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(written_files.os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write(tmp_path / "a")
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "b", "text")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_draft_that_a_killed_process_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f".a.{os.getpid()}").symlink_to(tmp_path / "victim")
    write_whole(tmp_path / "a", "text", mode=0o600)
    assert (tmp_path / "a").read_text(encoding="utf-8") == "text"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "victim").exists()
