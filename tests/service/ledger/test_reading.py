"""A ledger is read without a trace: at rest, while another writes, after a kill, from where nothing may be written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectune.service.campaign.model.records import CampaignRecord
from spectune.service.errors import LedgerError
from spectune.service.ledger import Ledger
from spectune.service.ledger.reading import read_ledger
from tests.fakes.unprivileged import forbid_writing, run_unprivileged

STORED = Path(__file__).parent / "stored" / "0001.sqlite.sql"
SPECIFICATION = {"objective": {"mode": "minimize"}}
KILLED = """
import os, sys
from pathlib import Path
from spectune.service.ledger import Ledger
ledger = Ledger.at(Path(sys.argv[1]))
ledger.create_campaign("late", name="late", specification={})
os._exit(9)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may reach, unlike those of pytest."""
    made = Path(tempfile.mkdtemp(prefix="spectune-reading-"))
    made.chmod(0o755)
    yield made
    made.chmod(0o755)
    shutil.rmtree(made)


@pytest.fixture
def ledger_file(folder: Path) -> Path:
    path = folder / "ledger?#%20.sqlite"
    with Ledger.at(path) as ledger:
        ledger.create_campaign("c", name="c", specification=SPECIFICATION)
    return path


def ids(ledger: Ledger) -> list[str]:
    return [each.campaign_id for each in ledger.campaigns()]


def beside(path: Path) -> list[str]:
    return sorted(each.name.removeprefix(path.name) for each in path.parent.iterdir())


def left_open(path: Path) -> None:
    """Leave a ledger as a process does that was killed: with its log."""
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert beside(path) == ["", "-shm", "-wal"]


def test_reading_a_ledger_at_rest_leaves_nothing(ledger_file: Path) -> None:
    before = ledger_file.stat()
    assert read_ledger(ledger_file, ids, kind=Ledger) == ["c"]
    assert beside(ledger_file) == [""]
    assert ledger_file.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("state", ["at rest", "killed", "switched off", "of an older release"])
def test_a_ledger_that_one_may_only_read_is_read_whole(state: str, folder: Path, ledger_file: Path) -> None:
    expected = ["c"]
    if state in ("killed", "switched off"):
        left_open(ledger_file)
        expected = ["c", "late"]
    if state == "switched off":
        ledger_file.with_name(ledger_file.name + "-shm").unlink()
    if state == "of an older release":
        ledger_file.unlink()
        connection = sqlite3.connect(ledger_file)
        connection.executescript(STORED.read_text(encoding="utf-8"))
        connection.close()
        expected = ["c"]
    forbid_writing(folder)
    before = beside(ledger_file)
    status, told = run_unprivileged(lambda: print(sorted(read_ledger(ledger_file, ids, kind=Ledger))))
    assert (status, told.strip()) == (0, str(expected)), told
    assert beside(ledger_file) == before


def test_a_ledger_that_is_written_meanwhile_is_read_as_it_is(ledger_file: Path) -> None:
    with Ledger.at(ledger_file) as writer:
        writer.create_campaign("d", name="d", specification=SPECIFICATION)
        assert sorted(read_ledger(ledger_file, ids, kind=Ledger)) == ["c", "d"]


def test_a_writer_that_comes_and_goes_while_one_reads_is_noticed(ledger_file: Path) -> None:
    seen: list[list[CampaignRecord]] = []

    def read(ledger: Ledger) -> int:
        seen.append(ledger.campaigns())
        if len(seen) == 1:
            with Ledger.at(ledger_file) as writer:
                writer.create_campaign("d", name="d", specification=SPECIFICATION)
        return len(seen[-1])

    assert read_ledger(ledger_file, read, kind=Ledger) == 2
    assert [len(each) for each in seen] == [1, 2]


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00" + b"\x07" * 200, b"garbage" * 1000])
def test_what_is_no_ledger_is_refused_or_empty(content: bytes, folder: Path) -> None:
    path = folder / "ledger.sqlite"
    path.write_bytes(content)
    if content:
        with pytest.raises(LedgerError, match="cannot be opened"):
            read_ledger(path, ids, kind=Ledger)
    else:
        assert read_ledger(path, ids, kind=Ledger) == []
    assert path.read_bytes() == content


def test_a_ledger_that_one_may_not_read_is_named(ledger_file: Path) -> None:
    ledger_file.chmod(0o000)
    if os.getuid() != 0:
        with pytest.raises(LedgerError, match="cannot be opened"):
            read_ledger(ledger_file, ids, kind=Ledger)
        return

    def read() -> None:
        with pytest.raises(LedgerError, match="cannot be opened"):
            read_ledger(ledger_file, ids, kind=Ledger)

    assert run_unprivileged(read) == (0, "")
