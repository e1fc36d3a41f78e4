"""A process that outlives its service is adopted by the next one in the same folder, and by no other."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectune.service.hosting.daemon import Daemon

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "data").mkdir()
    process = Daemon(tmp_path / "data" / "x.json", log=tmp_path / "data" / "x.log")
    waiting = [sys.executable, "-c", "import signal; signal.pause()"]
    process.start(waiting, ports={"http": 1}, environment=dict(os.environ), folder=tmp_path)
    yield process
    process.stop()


def test_a_process_is_adopted_where_it_was_started(started: Daemon, tmp_path: Path) -> None:
    again = Daemon(tmp_path / "data" / "x.json", log=tmp_path / "x.log")
    assert again.adopt()
    assert again.ports == {"http": 1}


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_process_that_serves_another_folder_is_not_adopted(how: str, started: Daemon, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    if how == "moved":
        shutil.rmtree(tmp_path / "data")
    assert not Daemon(tmp_path / "elsewhere" / "x.json", log=tmp_path / "x.log").adopt()
    assert started.is_alive()


def test_a_record_of_an_earlier_release_names_no_folder_and_is_taken(started: Daemon, tmp_path: Path) -> None:
    record = tmp_path / "data" / "x.json"
    told = json.loads(record.read_text(encoding="utf-8"))
    del told["folder"]
    record.write_text(json.dumps(told), encoding="utf-8")
    assert Daemon(record, log=tmp_path / "x.log").adopt()
