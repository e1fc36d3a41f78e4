"""MLflow's store is whole or not there, whenever its maker is killed, and what cannot be opened is set aside."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from mlflow.store.db import utils as mlflow_database
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from spectune.service.data_directory import DataDirectory
from spectune.service.errors import TrackingError
from spectune.service.tracking.store_file import Condition, condition_of, make_whole
from spectune.service.tracking.stored_runs import StoredRuns
from tests.fakes.dying import die_at
from tests.fakes.mlflow_server import place_empty_store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


AN_EXPERIMENT = (
    "INSERT INTO experiments (name, workspace, lifecycle_stage) VALUES ('old', 'default', 'active')"  # a person's
)


def uri(path: Path) -> str:
    return DataDirectory(path.parent).mlflow_uri


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return place_empty_store(tmp_path / "mlflow.sqlite")


def asides(folder: Path) -> list[str]:
    return sorted(path.name.split("-2", 1)[0] for path in folder.glob("mlflow.sqlite.*"))


def opens(path: Path) -> bool:
    """Whether MLflow itself opens a store and an experiment can be made there."""
    runs = StoredRuns.connect(uri(path))
    return runs.experiment("spectune", (path.parent / "art").as_uri()) != "" and runs.holds("spectune")


@pytest.mark.slow
@pytest.mark.parametrize("statement", [1, 3, 40, 120, 200, 300, 420, 500])
def test_a_maker_that_is_killed_leaves_nothing_in_the_way(statement: int, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.sqlite"
    assert die_at(statement, lambda: make_whole(uri(path)))
    assert not path.exists()
    make_whole(uri(path))
    assert condition_of(path) is Condition.WHOLE
    assert asides(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("statement", [60, 250, 400])
def test_what_mlflow_itself_left_half_made_is_set_aside(statement: int, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.sqlite"
    engine = create_engine(uri(path))
    assert die_at(statement, lambda: mlflow_database._initialize_tables(engine))
    with closing(sqlite3.connect(path)) as connection:  # an earlier MLflow commits each migration
        connection.execute("CREATE TABLE IF NOT EXISTS _alembic_tmp_experiments (x)")
    assert condition_of(path) is Condition.HALF_MADE
    make_whole(uri(path))
    assert condition_of(path) is Condition.WHOLE
    assert asides(tmp_path) == ["mlflow.sqlite.half-made"]


def damage(store: Path, how: str) -> None:
    size = store.stat().st_size
    match how:
        case "garbage":
            store.write_bytes(os.urandom(4096))
        case "truncated":
            os.truncate(store, size // 2)
        case "torn in the middle":
            with store.open("r+b") as file:
                file.seek(4096 * 2)
                file.write(b"\x55" * (size - 4096 * 4))
        case "no schema":
            with closing(sqlite3.connect(store)) as connection:
                connection.execute("DELETE FROM alembic_version")
                connection.commit()
        case "a table is missing":
            with closing(sqlite3.connect(store)) as connection:
                connection.execute("DROP TABLE latest_metrics")
        case "another program's":
            store.unlink()
            with closing(sqlite3.connect(store)) as connection:
                connection.execute("CREATE TABLE cats (name)")


@pytest.mark.parametrize(
    "how", ["garbage", "truncated", "torn in the middle", "no schema", "a table is missing", "another program's"]
)
def test_a_store_that_cannot_be_opened_is_set_aside_and_kept(how: str, store: Path) -> None:
    damage(store, how)
    content = store.read_bytes()
    assert opens(store)
    (aside,) = (path for path in store.parent.glob("mlflow.sqlite.*-2*") if path.suffix != ".lock")
    assert aside.read_bytes() == content


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_store_that_is_not_there_or_empty_is_made(how: str, tmp_path: Path) -> None:
    path = tmp_path / "a%20b?c#d ü" / "mlflow.sqlite"
    path.parent.mkdir()
    if how == "empty":
        path.touch()
    assert opens(path)
    assert condition_of(path) is Condition.WHOLE
    assert [each.name for each in tmp_path.iterdir()] == [path.parent.name]


def test_a_log_whose_store_was_deleted_does_not_spoil_the_next(store: Path) -> None:
    store.unlink()
    store.with_name("mlflow.sqlite-wal").write_bytes(b"7" * 5000)
    assert opens(store)
    assert asides(store.parent) == ["mlflow.sqlite.orphaned"]


def test_a_store_of_a_later_mlflow_is_left_alone_and_said(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of tomorrow'")
        connection.commit()
    content = store.read_bytes()
    with pytest.raises(TrackingError, match="of a later MLflow than the one installed"):
        make_whole(uri(store))
    assert store.read_bytes() == content


@pytest.fixture
def older(store: Path) -> Path:
    """A store as the release before had it, as far as its last migration can be taken back."""
    with closing(sqlite3.connect(store)) as connection:
        connection.execute(AN_EXPERIMENT)
        connection.commit()
    command.downgrade(mlflow_database._get_alembic_config(uri(store)), "-1")
    return store


def test_a_store_of_an_older_mlflow_is_brought_up_to_date_as_a_copy(older: Path) -> None:
    assert condition_of(older) is Condition.OLDER
    before = shutil.copy(older, older.parent / "before")
    for statement in (1, 6, 12):
        assert die_at(statement, lambda: make_whole(uri(older)))
        assert condition_of(older) is Condition.OLDER
        assert older.read_bytes() == Path(before).read_bytes()
    make_whole(uri(older))
    assert condition_of(older) is Condition.WHOLE
    assert StoredRuns.connect(uri(older)).holds("old")
    assert asides(older.parent) == ["mlflow.sqlite.before-upgrade"]


def test_a_store_that_is_busy_is_not_set_aside(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectune.service.tracking import store_file

    monkeypatch.setattr(store_file, "_BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(store, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match="cannot be opened"):
            make_whole(uri(store))
        writer.execute("ROLLBACK")
    assert opens(store)
    assert asides(store.parent) == []


def test_a_full_disk_sets_nothing_aside(older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    def fail(_: object) -> None:
        raise OperationalError("CREATE TABLE", None, full)

    monkeypatch.setattr(mlflow_database, "_upgrade_db", fail)
    with pytest.raises(TrackingError, match="database or disk is full"):
        make_whole(uri(older))
    assert condition_of(older) is Condition.OLDER
    (tmp_path / "other").mkdir()
    with pytest.raises(TrackingError, match="database or disk is full"):
        make_whole(uri(tmp_path / "other" / "mlflow.sqlite"))
    assert asides(older.parent) == []


def test_a_folder_in_the_place_of_a_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.sqlite").mkdir()
    with pytest.raises(TrackingError, match="cannot be opened"):
        make_whole(uri(tmp_path / "mlflow.sqlite"))


@pytest.mark.slow
def test_several_processes_that_find_a_broken_store_mend_it_once(store: Path) -> None:
    damage(store, "garbage")
    command = [sys.executable, "-m", "spectune.service.tracking.store_file", str(store), "/bin/true"]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [each.wait() for each in running] == [0, 0, 0]
    assert condition_of(store) is Condition.WHOLE
    assert asides(store.parent) == ["mlflow.sqlite.damaged"]


def test_artifacts_follow_a_store_that_was_moved(store: Path, tmp_path: Path) -> None:
    old, new = (tmp_path / "old%20" / "art").as_uri(), (tmp_path / "new" / "art").as_uri()
    runs = StoredRuns.connect(uri(store))
    experiment = runs.experiment("spectune", old)
    other = runs.experiment("a person's", (tmp_path / "elsewhere").as_uri())
    made = [runs._store.create_run(each, "u", 0, [], "n").info for each in (experiment, other)]
    moved = StoredRuns.connect(uri(store))
    assert moved.experiment("spectune", new) == experiment
    after = [moved._store.get_run(each.run_id).info.artifact_uri for each in made]
    assert after[0] == made[0].artifact_uri.replace(old, new) != made[0].artifact_uri
    assert after[1] == made[1].artifact_uri
    assert moved._store.get_experiment(experiment).artifact_location == new
