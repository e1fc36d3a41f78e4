"""`spectune sync`: brings MLflow up to the ledger, or makes it again from the ledger."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from spectune.search_spaces.space import nearest_hint
from spectune.service.campaign.model.records import CampaignRecord
from spectune.service.cli.run import DEFAULT_DATA_DIR, DataDirOption
from spectune.service.data_directory import DataDirectory
from spectune.service.errors import CampaignNotFoundError, DataDirectoryError, TrackingError
from spectune.service.ledger import ServiceLedger
from spectune.service.settings import Settings
from spectune.service.tracking import links
from spectune.service.tracking.projector import Projector

_SHOWN = 20


def sync(
    campaign: Annotated[
        str | None, typer.Argument(metavar="[CAMPAIGN]", help="Its id; all campaigns if not given.", show_default=False)
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="From the start, also what MLflow has been told; nothing is doubled.")
    ] = False,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Bring MLflow up to date with the ledger: the data directory's own, or that of SPECTUNE_MLFLOW_URI."""
    from spectune.service import app  # torch takes seconds, and other verbs need none of it

    settings = Settings.from_environment()
    data = _existing(data_dir, settings)
    console = Console(highlight=False)
    with data.writing(settings.data_access), data.locked(served_at=""), app.service_ledger(data, settings) as ledger:
        campaigns = _chosen(ledger, campaign)
        holder = f"sync:{socket.gethostname()}:{os.getpid()}"
        if not app.lead_tracking(ledger, holder):
            raise DataDirectoryError(f"another process keeps MLflow up to date: got {data.root}")
        try:
            _refuse_unreachable(settings.mlflow_uri)
            ids = [each.campaign_id for each in campaigns]
            if rebuild:
                app.forget_told(ledger, ids)
            address = settings.mlflow_uri or links.EMBEDDED_ADDRESS
            made = app.projectors(data, ledger, ids, mlflow_uri=settings.mlflow_uri, address=address)
            _bring_up_to_date(ledger, made, console)
        finally:
            ledger.leave_lease(links.MLFLOW, holder=holder)


def _refuse_unreachable(mlflow_uri: str | None) -> None:
    """Say what is wrong with another MLflow before waiting for it."""
    if mlflow_uri is not None and mlflow_uri.startswith("http"):
        from spectune.service.tracking.health import problem_with

        problem = problem_with(mlflow_uri)
        if problem is not None:
            raise TrackingError(problem)


def _existing(data_dir: Path, settings: Settings) -> DataDirectory:
    """Return a data directory that has been used; nothing is created."""
    data = DataDirectory.at(data_dir)
    if settings.database_url is None and not data.ledger.is_file():
        raise DataDirectoryError(f"no campaign was ever run in this data directory: got {data.root}")
    if not data.root.is_dir():
        raise DataDirectoryError(f"the service's data directory is needed (--data-dir): got {data.root}")
    return data


def _chosen(ledger: ServiceLedger, campaign_id: str | None) -> list[CampaignRecord]:
    """Read the campaign that was asked for, or all, the oldest first."""
    known = ledger.campaigns()
    if campaign_id is None:
        return known[::-1]
    for record in known:
        if record.campaign_id == campaign_id:
            return [record]
    hint = nearest_hint(campaign_id, [record.campaign_id for record in known])
    raise CampaignNotFoundError(f"no such campaign{hint}: got {campaign_id!r}")


def _bring_up_to_date(ledger: ServiceLedger, made: list[Projector], console: Console) -> None:
    """Project each campaign, and show what was told and what MLflow refuses."""
    table = Table("campaign", "told", "up to", "refused")
    for projector in made:
        campaign_id = projector.campaign_id
        before = ledger.cursor(links.MLFLOW, campaign_id)
        projector.catch_up()
        projector.attach()
        after = ledger.cursor(links.MLFLOW, campaign_id)
        refused = ledger.dead_letters(links.MLFLOW, campaign_id)
        table.add_row(campaign_id, str(after - before), str(after), str(len(refused)))
        for each in refused[:_SHOWN]:
            whose = "the campaign" if each.trial is None else f"trial {each.trial}"
            line = f"{campaign_id}: MLflow refuses {each.content} of {whose}: {each.error}"
            console.print(line, markup=False, soft_wrap=True)
        if len(refused) > _SHOWN:
            console.print(f"{campaign_id}: and {len(refused) - _SHOWN} more", soft_wrap=True)
    console.print(table)
