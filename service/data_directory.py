"""The data directory: where the embedded service keeps everything, and who finds what in it.

ledger.sqlite                         the truth
mlflow.sqlite  mlflow-artifacts/      MLflow's store, a projection
mlflow.sqlite.<reason>-<moment>       one that could not be opened, or as it was before an upgrade of MLflow
mlflow-server.json  mlflow-server.log the MLflow server that `serve` has started, and what it printed
ray-head.json  ray-head.log  ray-token the Ray head that `serve` has started, what it printed, and its secret
service.lock                          held by `serve` alone, or by any number of `run`; says where `serve` listens
replicas.lock                         held by all replicas of a service whose ledger is elsewhere, instead
campaigns/<id>/owner.lock             held locked by the process that runs the campaign
               driver-<n>.log         what the driver of attempt n printed
               driver-<n>.exit      with what code it ended, where it outlives its owner
               spool-<n>.jsonl        what attempt n decided, before the ledger knew
               checkpoints/           states of trials: attempt-<n>/<slot>/<number>.ckpt
               tune/attempt-<n>/      Ray Tune's own files, of no value afterwards

Only its owner reads it, unless the operator widens that (`Access`): every process of ours that writes here has the mask
for new files that the access calls for, so that this holds for what SQLite, MLflow and Ray write as well.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote

from spectune.service.errors import DataDirectoryError

_LOOKS = 20
_LOOK_SECONDS = 0.025


_LAST_BYTES = 4096
_LONGEST_LINE = 300
_LONGEST_REASON = 1000
_QUOTED = {ord(each): quote(each) for each in "%?#"}  # what SQLAlchemy's addresses take for something else
_SQLITE_ENDS = ("", "-wal", "-shm", "-journal")


class Access(StrEnum):
    """Who may read a data directory, and write to it where a group shares it."""

    OWNER = "owner"
    GROUP = "group"
    ALL = "all"

    @property
    def mask(self) -> int:
        """The permissions that new files and folders do not have."""
        return {Access.OWNER: 0o077, Access.GROUP: 0o007, Access.ALL: 0o022}[self]


@dataclass(frozen=True)
class DataDirectory:
    """Paths below one root; nothing is created by asking for a path."""

    root: Path

    @classmethod
    def at(cls, path: Path) -> Self:
        """Name a data directory by a path as a user gives it.

        Raises:
            DataDirectoryError: The path holds a character that no log, address or command line can show.
        """
        if not str(path).isprintable():  # line breaks, other control characters, halves of characters
            raise DataDirectoryError(f"the data directory's path holds what cannot be printed: got {str(path)!r}")
        return cls(path.resolve())

    @property
    def ledger(self) -> Path:
        """The ledger's database file."""
        return self.root / "ledger.sqlite"

    @property
    def mlflow_store(self) -> Path:
        """MLflow's database file."""
        return self.root / "mlflow.sqlite"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's artifacts."""
        return self.root / "mlflow-artifacts"

    @property
    def mlflow_server(self) -> Path:
        """Which process serves MLflow, and where."""
        return self.root / "mlflow-server.json"

    @property
    def mlflow_log(self) -> Path:
        """What the MLflow server printed."""
        return self.root / "mlflow-server.log"

    @property
    def ray_head(self) -> Path:
        """Which process is the Ray head, and where it listens."""
        return self.root / "ray-head.json"

    @property
    def ray_log(self) -> Path:
        """What the Ray head printed."""
        return self.root / "ray-head.log"

    @property
    def ray_token(self) -> Path:
        """What the Ray head wants to be told by whoever asks it for anything."""
        return self.root / "ray-token"

    @property
    def service_lock(self) -> Path:
        """The file that keeps `serve` and `run` from each other's campaigns."""
        return self.root / "service.lock"

    @property
    def replicas_lock(self) -> Path:
        """The file that replicas of one service share, and that keeps `run` away from them."""
        return self.root / "replicas.lock"

    @property
    def mlflow_uri(self) -> str:
        """The tracking address of the embedded MLflow store."""
        path = str(self.mlflow_store)
        quoted = path.translate(_QUOTED)
        # Of an address that begins with `sqlite:///` MLflow makes the folder, which it names as the address does.
        return f"sqlite:///{path}" if quoted == path else f"sqlite+pysqlite:///{quoted}"

    def campaign(self, campaign_id: str) -> Path:
        """The folder of one campaign."""
        return self.root / "campaigns" / campaign_id

    def owner_lock(self, campaign_id: str) -> Path:
        """The file that the process running a campaign holds locked."""
        return self.campaign(campaign_id) / "owner.lock"

    def spool(self, campaign_id: str, attempt: int) -> Path:
        """The spool of one attempt."""
        return self.campaign(campaign_id) / f"spool-{attempt}.jsonl"

    def driver_log(self, campaign_id: str, attempt: int) -> Path:
        """What the driver of one attempt printed."""
        return self.campaign(campaign_id) / f"driver-{attempt}.log"

    def driver_exit(self, campaign_id: str, attempt: int) -> Path:
        """The file in which a driver that outlives its owner leaves its exit code."""
        return self.campaign(campaign_id) / f"driver-{attempt}.exit"

    def tune(self, campaign_id: str, attempt: int) -> Path:
        """Ray Tune's own files of one attempt."""
        return self.campaign(campaign_id) / "tune" / f"attempt-{attempt}"

    def checkpoints(self, campaign_id: str) -> Path:
        """The root of a campaign's checkpoints."""
        return self.campaign(campaign_id) / "checkpoints"

    def output(self, campaign_id: str) -> Path:
        """Where workers keep what the code of trials prints: a folder for each attempt."""
        return self.campaign(campaign_id) / "output"

    def driver_reason(self, campaign_id: str, attempt: int) -> Path:
        """Where the driver of an attempt leaves why it ended, in words."""
        return self.campaign(campaign_id) / f"driver-{attempt}.reason"

    def last_words(self, campaign_id: str, attempt: int) -> str:
        """Return why the driver of an attempt ended, as far as it said: a reason that it left, or its log's last line.

        Empty if it said nothing; shortened.
        """
        with suppress(OSError):
            reason = self.driver_reason(campaign_id, attempt).read_text(encoding="utf-8", errors="replace")
            return " ".join(reason.split())[:_LONGEST_REASON]
        try:
            with self.driver_log(campaign_id, attempt).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_BYTES))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        found = [line for line in ("".join(filter(str.isprintable, each)).strip() for each in lines) if line]
        return found[-1][:_LONGEST_LINE] if found else ""

    def check_writable(self) -> None:
        """Make sure that the directory exists or can be made, without making it.

        Raises:
            DataDirectoryError: It cannot be written; nothing was left behind.
        """
        try:
            existing = next(path for path in (self.root, *self.root.parents) if path.exists())
            with tempfile.TemporaryDirectory(dir=existing, prefix=".spectune-"):
                pass
        except OSError as error:
            raise DataDirectoryError(
                f"the data directory cannot be written ({error.strerror}): got {self.root}"
            ) from error

    @contextmanager
    def replicated(self, *, served_at: str) -> Iterator[Callable[[], bool]]:
        """Share the directory with other replicas of one service, but with no `run`.

        Returns:
            A question: whether this is the last replica.

        Raises:
            DataDirectoryError: A service that wants it alone, or a `run`, has it.
        """
        with self.replicas_lock.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            with self.service_lock.open("a+", encoding="utf-8") as alone:
                self._take(alone, fcntl.LOCK_EX, num_looks=_LOOKS)  # for a moment: whoever comes looks at both
            self.replicas_lock.write_text(served_at, encoding="utf-8")

            def is_last() -> bool:
                try:
                    fcntl.flock(file, fcntl.LOCK_NB | fcntl.LOCK_EX)
                except BlockingIOError:
                    return False
                return True

            yield is_last

    def _check_replicas(self) -> None:
        """Make sure that no replica of a service has the directory; others may look at the same moment."""
        with self.replicas_lock.open("a+", encoding="utf-8") as file:
            self._take(file, fcntl.LOCK_EX, num_looks=_LOOKS)

    def _take(self, file: IO[str], kind: int, *, num_looks: int = 1) -> None:
        """Take a lock, or say who has it."""
        for look in range(num_looks):
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_NB | kind)
                return
            time.sleep(_LOOK_SECONDS if look < num_looks - 1 else 0.0)
        file.seek(0)
        holder = file.read().strip()
        who = f"the service at {holder} has this data directory" if holder else "another command uses it"
        raise DataDirectoryError(f"{who}: got {self.root}")

    @contextmanager
    def locked(self, *, served_at: str | None = None) -> Iterator[None]:
        """Keep the directory to oneself (as a service), or share it with others that run one campaign each.

        Args:
            served_at: The address of the service, empty for a command that is no service; None to share.

        Raises:
            DataDirectoryError: Another process has it; where that is a service, with its address.
        """
        with self.service_lock.open("a+", encoding="utf-8") as file:
            self._take(file, fcntl.LOCK_SH if served_at is None else fcntl.LOCK_EX)
            self._check_replicas()
            if served_at is None:
                yield
                return
            file.truncate(0)
            file.write(served_at)
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    @contextmanager
    def writing(self, access: Access) -> Iterator[None]:
        """Make the directory, and give what is written there until the context ends to those whom `access` names.

        So is what was written before, as by an earlier release that left it open. The directory itself is widened, but
        never closed: if it was there before it may be a user's, with other things in it.

        Raises:
            DataDirectoryError: It cannot be made.
        """
        before = os.umask(access.mask)
        try:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataDirectoryError(
                    f"the data directory cannot be made ({error.strerror}): got {self.root}"
                ) from error
            self._give_to(access)
            yield
        finally:
            os.umask(before)

    def _give_to(self, access: Access) -> None:
        """Give what is ours in the root the permissions that new files and folders have; the token stays as it is."""
        if access is not Access.OWNER:
            with suppress(OSError):
                self.root.chmod(stat.S_IMODE(self.root.stat().st_mode) | (0o777 & ~access.mask))
        stores = [path.with_name(path.name + end) for path in (self.ledger, self.mlflow_store) for end in _SQLITE_ENDS]
        servers = [self.mlflow_server, self.mlflow_log, self.ray_head, self.ray_log]
        folders = [self.mlflow_artifacts, self.root / "campaigns"]
        within = (path for folder in folders for path in folder.rglob("*")) if access is not Access.OWNER else ()
        for path in (*stores, *servers, *folders, self.service_lock, self.replicas_lock, *within):
            with suppress(OSError):  # it is not there, has just gone, or is somebody else's
                mode = path.lstat().st_mode
                wanted = (0o777 if stat.S_ISDIR(mode) else 0o666) & ~access.mask
                if stat.S_IMODE(mode) != wanted and not stat.S_ISLNK(mode):
                    path.chmod(wanted)
