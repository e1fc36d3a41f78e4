"""The data directory: its owner's alone, under any name that can be printed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from spectune.service.data_directory import Access, DataDirectory
from spectune.service.errors import DataDirectoryError
from spectune.service.ledger import Ledger

MODES = {Access.OWNER: (0o700, 0o600), Access.GROUP: (0o770, 0o660), Access.ALL: (0o755, 0o644)}


def permissions(folder: Path) -> set[tuple[bool, int]]:
    return {(path.is_dir(), path.lstat().st_mode & 0o777) for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_new_files_and_folders_are_open_to_those_named_alone(access: Access, mask: int, tmp_path: Path) -> None:
    data = DataDirectory.at(tmp_path / "a" / "data")
    before = os.umask(mask)
    try:
        with data.writing(access), Ledger.at(data.ledger):
            data.checkpoints("c").mkdir(parents=True)
            data.spool("c", 1).write_text("", encoding="utf-8")
            assert permissions(data.root) == {(True, MODES[access][0]), (False, MODES[access][1])}
            assert data.ledger.with_name("ledger.sqlite-wal").exists()
        assert os.umask(mask) == mask, "the process has its own mask again"
    finally:
        os.umask(before)


def test_what_an_earlier_release_left_open_is_closed_but_not_a_folder_of_the_users(tmp_path: Path) -> None:
    data = DataDirectory.at(tmp_path)
    tmp_path.chmod(0o755)
    for path in (data.ledger, data.mlflow_store, data.service_lock, tmp_path / "notes.txt"):
        path.touch()
        path.chmod(0o644)
    data.checkpoints("c").mkdir(parents=True)
    with data.writing(Access.OWNER):
        pass
    assert data.ledger.stat().st_mode & 0o777 == 0o600
    assert data.mlflow_store.stat().st_mode & 0o777 == 0o600
    assert data.campaign("c").parent.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "notes.txt").stat().st_mode & 0o777 == 0o644
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_what_was_written_before_is_widened_but_not_the_token(tmp_path: Path) -> None:
    data = DataDirectory.at(tmp_path / "data")
    with data.writing(Access.OWNER), Ledger.at(data.ledger):
        data.checkpoints("c").mkdir(parents=True)
        data.spool("c", 1).write_text("", encoding="utf-8")
        data.ray_token.touch(mode=0o600)
    with data.writing(Access.GROUP):
        pass
    assert data.ray_token.stat().st_mode & 0o777 == 0o600
    data.ray_token.unlink()
    assert permissions(data.root) - {(True, 0o700)} == {(True, 0o770), (False, 0o660)}


def test_a_link_in_the_data_directory_is_not_followed_to_change_permissions(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "elsewhere").chmod(0o644)
    (tmp_path / "mlflow.sqlite").symlink_to(tmp_path / "elsewhere")
    with DataDirectory.at(tmp_path).writing(Access.OWNER):
        pass
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o644


def test_processes_that_write_at_once_leave_nothing_open(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom spectune.service.data_directory import Access, DataDirectory\n"
        "from spectune.service.ledger import Ledger\n"
        "data = DataDirectory.at(Path(sys.argv[1]))\n"
        "with data.writing(Access.OWNER), data.locked(), Ledger.at(data.ledger) as ledger:\n"
        "    data.owner_lock(sys.argv[2]).parent.mkdir(parents=True)\n"
        "    data.owner_lock(sys.argv[2]).touch()\n"
    )
    root = tmp_path / "data"
    running = [subprocess.Popen([sys.executable, "-c", code, str(root), str(number)]) for number in range(4)]
    assert [each.wait() for each in running] == [0] * 4
    assert permissions(root) == {(True, 0o700), (False, 0o600)}


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "caf\udce9", "a\x7fb", "a\u2028b", "\x1b[31m"])
def test_a_path_that_cannot_be_printed_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError, match="holds what cannot be printed") as caught:
        DataDirectory.at(tmp_path / name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a b", "a%20b", "a?b", "a#b", "ünï 雪", "a'b\"c", "$HOME", "a&b;c", "-x", "100%"])
def test_any_other_path_holds_a_ledger(name: str, tmp_path: Path) -> None:
    data = DataDirectory.at(tmp_path / name)
    data.check_writable()
    with data.writing(Access.OWNER), Ledger.at(data.ledger):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([name, "ledger.sqlite"])
    with sqlite3.connect(data.ledger) as connection:
        assert connection.execute("SELECT count(*) FROM campaigns").fetchone() == (0,)
    connection.close()
