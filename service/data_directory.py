"""The data directory: where the embedded service keeps everything, and who finds what in it.

ledger.sqlite                         the truth
mlflow.sqlite  mlflow-artifacts/      MLflow's store, a projection
mlflow-server.json  mlflow-server.log the MLflow server that `serve` has started, and what it printed
service.lock                          held by `serve` alone, or by any number of `run`; says where `serve` listens
campaigns/<id>/owner.lock             held locked by the process that runs the campaign
               driver-<n>.log         what the driver of attempt n printed
               driver-<n>.exit      with what code it ended, where it outlives its owner
               spool-<n>.jsonl        what attempt n decided, before the ledger knew
               checkpoints/           states of trials: attempt-<n>/<slot>/<number>.ckpt
               tune/attempt-<n>/      Ray Tune's own files, of no value afterwards
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.errors import DataDirectoryError


@dataclass(frozen=True)
class DataDirectory:
    """Paths below one root; nothing is created by asking for a path."""

    root: Path

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
    def service_lock(self) -> Path:
        """The file that keeps `serve` and `run` from each other's campaigns."""
        return self.root / "service.lock"

    @property
    def mlflow_uri(self) -> str:
        """The tracking address of the embedded MLflow store."""
        return f"sqlite:///{self.mlflow_store}"

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

    def check_writable(self) -> None:
        """Make sure that the directory exists or can be made, without making it.

        MLflow takes its store's path as a URL, in which `?` and `#` end the path; such names are refused.

        Raises:
            DataDirectoryError: It cannot be written; nothing was left behind.
        """
        if not {"?", "#"}.isdisjoint(str(self.root)):
            raise DataDirectoryError(f"the data directory's path may not hold '?' or '#': got {self.root}")
        try:
            existing = next(path for path in (self.root, *self.root.parents) if path.exists())
            with tempfile.TemporaryDirectory(dir=existing, prefix=".spectune-"):
                pass
        except OSError as error:
            raise DataDirectoryError(
                f"the data directory cannot be written ({error.strerror}): got {self.root}"
            ) from error

    @contextmanager
    def locked(self, *, served_at: str | None = None) -> Iterator[None]:
        """Keep the directory to oneself (as a service), or share it with others that run one campaign each.

        Args:
            served_at: The address of the service, empty for a command that is no service; None to share.

        Raises:
            DataDirectoryError: Another process has it; where that is a service, with its address.
        """
        with self.service_lock.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_NB | (fcntl.LOCK_SH if served_at is None else fcntl.LOCK_EX))
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip()
                who = f"the service at {holder} has this data directory" if holder else "another command uses it"
                raise DataDirectoryError(f"{who}: got {self.root}") from error
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

    def create(self) -> None:
        """Make the directory.

        Raises:
            DataDirectoryError: It cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataDirectoryError(
                f"the data directory cannot be made ({error.strerror}): got {self.root}"
            ) from error


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that whoever reads it finds all of it, or the one before."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
