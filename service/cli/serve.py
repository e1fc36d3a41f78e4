"""`spectune serve` and `spectune keys`: run the service, and say who may use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from spectune.service.cli.run import DEFAULT_DATA_DIR, DataDirOption
from spectune.service.data_directory import DataDirectory
from spectune.service.errors import DataDirectoryError, SettingsError
from spectune.service.hosting.logs import set_up_logs
from spectune.service.ledger import ServiceLedger
from spectune.service.ledger.access import Role
from spectune.service.ledger.reading import read_ledger
from spectune.service.settings import Settings

_LONGEST_OWNER = 60

keys = typer.Typer(help="API keys of the service.", no_args_is_help=True)


def serve(
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    host: Annotated[str, typer.Option("--host", help="Anything but loopback needs API keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8000,
    mlflow_port: Annotated[int, typer.Option("--mlflow-port", min=0, max=65535, help="0 takes any free port.")] = 0,
    ray: Annotated[
        bool, typer.Option(help="Drivers share a Ray of the service's own; without, each has its own.")
    ] = True,
    tracking: Annotated[bool, typer.Option(help="Keep MLflow up to date and serve it.")] = True,
    stop_campaigns: Annotated[bool, typer.Option("--stop-campaigns", help="Pause campaigns at the end.")] = False,
) -> None:
    """Serve campaigns over HTTP; SIGTERM ends the service, and campaigns go on."""
    from spectune.service.server import serve as run_service  # torch takes seconds, and other verbs need none of it

    set_up_logs()
    with _writing(data_dir) as (data, settings):
        run_service(
            data,
            settings,
            host=host,
            port=port,
            mlflow_port=mlflow_port,
            with_ray=ray,
            with_tracking=tracking,
            stop_campaigns=stop_campaigns,
        )


@keys.command(name="create")
def create_key(
    owner: Annotated[str, typer.Option("--owner", help="Whose campaigns it is for.")],
    role: Annotated[Role, typer.Option("--role", help="viewer reads, submitter submits, admin may everything.")],
    first: Annotated[bool, typer.Option("--first", help="Only if there is none yet.")] = False,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Make a key; it is shown this once."""
    if not owner.isprintable() or not 1 <= len(owner.strip()) <= _LONGEST_OWNER:
        raise SettingsError(f"--owner: a name of 1 to {_LONGEST_OWNER} characters is needed: got {owner!r}")
    from spectune.service.app import service_ledger

    with _writing(data_dir) as place, service_ledger(*place) as ledger:
        if first and ledger.has_keys():
            print("there is a key already")
        else:
            print(ledger.create_key(owner=owner, role=role))


@keys.command(name="list")
def list_keys(data_dir: DataDirOption = DEFAULT_DATA_DIR) -> None:
    """List the keys, without their secrets; the data directory is only read."""
    settings, data = Settings.from_environment(), DataDirectory.at(data_dir)
    if settings.database_url is not None:
        with ServiceLedger(settings.database_url) as ledger:
            found = ledger.list_keys()
    elif data.ledger.is_file():
        found = read_ledger(data.ledger, lambda ledger: ledger.list_keys(), kind=ServiceLedger)
    else:
        raise DataDirectoryError(f"no service and no campaign ever ran in this data directory: got {data.root}")
    table = Table("id", "owner", "role", "created", "revoked")
    for key in found:
        revoked = "" if key.revoked_at is None else _day(key.revoked_at)
        table.add_row(key.key_id, key.owner, key.role, _day(key.created_at), revoked)
    Console().print(table)


@keys.command(name="revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `spectune keys list` shows it.")],
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Make a key useless."""
    from spectune.service.app import service_ledger

    with _writing(data_dir) as place, service_ledger(*place) as ledger:
        if not ledger.revoke_key(key_id):
            raise SettingsError(f"no key in use has this id: got {key_id!r}")


@contextmanager
def _writing(data_dir: Path) -> Iterator[tuple[DataDirectory, Settings]]:
    """Make the data directory and write to it as the settings say."""
    settings, data = Settings.from_environment(), DataDirectory.at(data_dir)
    data.check_writable()
    with data.writing(settings.data_access):
        yield data, settings


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).strftime("%Y-%m-%d")
