"""A campaign that a data directory's ledger holds, read for the commands that look back at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from spectune.search_spaces.space import nearest_hint
from spectune.service.campaign.model.records import CampaignRecord, Observation, TrialRecord
from spectune.service.campaign.specification.specification import Specification, restore
from spectune.service.data_directory import DataDirectory
from spectune.service.errors import CampaignNotFoundError, DataDirectoryError, LedgerError
from spectune.service.ledger import Ledger
from spectune.service.ledger.reading import read_ledger

CampaignArgument = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Its id, as `run` printed it last.")]


@dataclass(frozen=True)
class StoredCampaign:
    """Everything the ledger knows of a campaign."""

    specification: Specification
    record: CampaignRecord
    trials: list[TrialRecord]
    observations: list[Observation]


def read_stored(data_dir: Path, campaign_id: str) -> StoredCampaign:
    """Read a campaign; nothing is created.

    Raises:
        DataDirectoryError: There is no ledger.
        CampaignNotFoundError: It holds no such campaign; says the nearest.
    """
    data = DataDirectory.at(data_dir)
    if not data.ledger.is_file():
        raise DataDirectoryError(f"no campaign was ever run in this data directory: got {data.root}")
    try:
        return read_ledger(data.ledger, lambda ledger: _read(ledger, campaign_id), kind=Ledger)
    except LedgerError as error:
        raise DataDirectoryError(str(error)) from error


def _read(ledger: Ledger, campaign_id: str) -> StoredCampaign:
    known = [record.campaign_id for record in ledger.campaigns()]
    if campaign_id not in known:
        hint = nearest_hint(campaign_id, known) or f"; the newest are {', '.join(known[:3]) or 'none'}"
        raise CampaignNotFoundError(f"no such campaign{hint}: got {campaign_id!r}")
    record = ledger.campaign(campaign_id)
    trials, observations = ledger.trials(campaign_id), ledger.observations(campaign_id)
    return StoredCampaign(restore(record.specification), record, trials, observations)
