"""The file of the data directory's own MLflow store: whole or not there, and of this release of MLflow.

MLflow makes its tables in some fifty migrations, none of which bears to be interrupted. So a new store is made under
another name and renamed; an older one is brought up to date as a copy, which is renamed; and one that cannot be opened
is set aside under a name that says why, and made anew: all of it is in the ledger, from which it is told again.

    python -m spectune.service.tracking.store_file FILE COMMAND...    makes the store whole, then becomes the command
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from alembic.script import ScriptDirectory
from alembic.util import CommandError
from mlflow.exceptions import MlflowException
from mlflow.store.db import utils as mlflow_database
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from spectune.service.errors import TrackingError

_ADDRESS: Final = "sqlite+pysqlite:///"
_BUSY_SECONDS: Final = 30.0
_PASSING: Final = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)
"""What is wrong with the machine at this moment, and not with the file."""
_ENDS: Final = ("", "-wal", "-shm", "-journal")

_log = logging.getLogger(__name__)


class Condition(StrEnum):
    """How a store was found."""

    WHOLE = "whole"
    MISSING = "missing"
    OLDER = "of an older MLflow"
    LATER = "of a later MLflow"
    HALF_MADE = "half made"
    DAMAGED = "damaged"


def make_whole(tracking_uri: str) -> None:
    """Make sure that the store behind an address is there and can be opened; an address of a server is left alone.

    Raises:
        TrackingError: It cannot be opened just now, or it is of a later release of MLflow.
    """
    scheme, _, place = tracking_uri.partition(":///")
    if scheme.partition("+")[0] != "sqlite":
        return
    path = Path(unquote(place)).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            _mend(path, condition_of(path))
    except (OSError, sqlite3.OperationalError, SQLAlchemyError, MlflowException) as error:
        raise TrackingError(f"MLflow's store cannot be opened ({error}): got {path}") from error


def condition_of(path: Path) -> Condition:
    """Find out how a store is; only reads, except that SQLite takes back what an interrupted transaction left.

    Raises:
        sqlite3.OperationalError: It cannot be opened just now.
    """
    if not path.exists() or path.stat().st_size == 0:
        return Condition.MISSING
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                return Condition.DAMAGED
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "alembic_version" not in tables or any(name.startswith("_alembic_tmp_") for name in tables):
                return Condition.HALF_MADE
            versions = [version for (version,) in connection.execute("SELECT version_num FROM alembic_version")]
    except sqlite3.DatabaseError as error:
        if _passes(error):
            raise
        return Condition.DAMAGED
    return _condition_of_schema(versions, tables)


def _passes(error: BaseException | None) -> bool:
    """Return whether an error of SQLite is the machine's at this moment, and not the file's."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _PASSING


def _condition_of_schema(versions: list[str], tables: set[str]) -> Condition:
    scripts = ScriptDirectory.from_config(mlflow_database._get_alembic_config(""))
    if versions == list(scripts.get_heads()):
        is_complete = tables >= set(mlflow_database.Base.metadata.tables)
        return Condition.WHOLE if is_complete else Condition.HALF_MADE
    if len(versions) != 1:
        return Condition.HALF_MADE
    try:
        return Condition.LATER if scripts.get_revision(versions[0]) is None else Condition.OLDER
    except CommandError:
        return Condition.LATER


def _mend(path: Path, condition: Condition) -> None:
    match condition:
        case Condition.WHOLE:
            return
        case Condition.LATER:
            raise TrackingError(f"MLflow's store is {condition} than the one installed: got {path}")
        case Condition.OLDER:
            _upgrade(path)
        case Condition.MISSING:
            _set_aside(path, "orphaned")  # a log whose database was deleted would spoil the next one
            _replace(path, _make)
        case Condition.HALF_MADE | Condition.DAMAGED:
            aside = _set_aside(path, condition.replace(" ", "-"))
            _log.warning("MLflow's store was %s; it is made again from the ledger, and kept as %s", condition, aside)
            _replace(path, _make)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from mending the same store."""
    with path.with_name(f".{path.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(path: Path, make: Callable[[Path], None]) -> None:
    """Make a database under another name and, when it is whole and on the disk, give it its own."""
    draft = path.with_name(f".{path.name}.making")
    for end in _ENDS:  # of a process that was killed: others are kept out
        draft.with_name(draft.name + end).unlink(missing_ok=True)
    draft.touch()  # SQLite would give it to nobody but its owner to write
    make(draft)
    for name in (draft, path.parent):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            if name == draft:
                os.replace(draft, path)
        finally:
            os.close(descriptor)


def _make(draft: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # takes a second, and is seldom needed

    store = SqlAlchemyStore(_ADDRESS + quote(str(draft)), (draft.parent / "mlflow-artifacts").as_uri())
    store._dispose_engine()


def _upgrade(path: Path) -> None:
    """Bring an older store up to date; the file as it was is kept."""

    def make(draft: Path) -> None:
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as source, closing(sqlite3.connect(draft)) as target:
            source.backup(target)
        engine = mlflow_database.create_sqlalchemy_engine(_ADDRESS + quote(str(draft)))
        try:
            mlflow_database._upgrade_db(engine)
        finally:
            engine.dispose()
        _set_aside(path, "before-upgrade", keep=True)

    try:
        _replace(path, make)
    except (SQLAlchemyError, CommandError) as error:
        if isinstance(error, DBAPIError) and _passes(error.orig):
            raise
        _log.warning("MLflow's store cannot be brought up to date: %s", error)
        _mend(path, Condition.DAMAGED)


def _set_aside(path: Path, reason: str, *, keep: bool = False) -> Path:
    """Rename a store and what belongs to it, or give it a second name if it is to be kept where it is."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    aside = path.with_name(f"{path.name}.{reason}-{moment}")
    if keep:
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # all of it in the one file
        os.link(path, aside)
        return aside
    for end in _ENDS:  # a log that is left behind by a kill in between is orphaned, and goes the same way
        with suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    return aside


def main() -> None:
    """Make the store of the first argument whole, and become the command of the others."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    file, *command = sys.argv[1:]
    make_whole(_ADDRESS + quote(file))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
