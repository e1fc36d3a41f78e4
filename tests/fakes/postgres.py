"""A PostgreSQL of one's own for a test run: Debian's binaries, a free port, files that vanish with it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

import psycopg

USER = "spectune"
ROOM_BYTES = 2**30


def find_binaries() -> Path | None:
    """Find the newest PostgreSQL that Debian has installed; None where there is none."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


class PrivatePostgres:
    """A running server; it refuses to be run by root, so root hands it to the unprivileged user `nobody`."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._user = "nobody" if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="spectune-postgres-", dir=_fast_folder()))
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        self.port = _free_port()
        self._call("initdb", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", f"--username={USER}", "-D")
        self.start()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Start it, or start it again."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder} -c fsync=off"
        log = self._folder / "log"
        self._call("pg_ctl", "start", "--wait", "--silent", f"--log={log}", f"--options={options}", "-D")

    def stop(self) -> None:
        """Stop it at once, as a crash would; what is in it stays."""
        self._call("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate", "-D")

    def remove(self) -> None:
        """Stop it and delete its files."""
        self.stop()
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """Make an empty database and give its address."""
        name = f"ledger_{uuid.uuid4().hex}"
        server = f"host=127.0.0.1 port={self.port} user={USER} dbname=postgres"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def drop(self, database: str) -> None:
        """Delete a database that nobody needs any more."""
        server = f"host=127.0.0.1 port={self.port} user={USER} dbname=postgres"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {database.rpartition('/')[2]} WITH (FORCE)")

    def _call(self, command: str, *arguments: str) -> None:
        """Run one of its commands on its data; a server that stays must not hold our pipes."""
        subprocess.run(
            [self._binaries / command, *arguments, self._data],
            check=True,
            user=self._user,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _fast_folder() -> str:
    """Find where files cost no disk: a database of PostgreSQL is three hundred of them, even an empty one."""
    memory = Path("/dev/shm")
    return str(memory) if memory.exists() and shutil.disk_usage(memory).free > ROOM_BYTES else "/tmp"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
