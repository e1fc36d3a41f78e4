"""What a crash leaves on the spools of earlier attempts, brought into the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from spectune.service.ledger.ledger import Ledger
from spectune.service.ledger.spool import read

_log = logging.getLogger(__name__)


def import_earlier_spools(ledger: Ledger, campaign_id: str, *, attempt: int, spool: Callable[[str, int], Path]) -> None:
    """Enter what earlier attempts decided and the ledger never heard; harmless when repeated.

    Args:
        ledger: The truth.
        campaign_id: Which campaign.
        attempt: The writer's attempt, which must be the current one.
        spool: Gives the path of an attempt's spool.

    Raises:
        FencedError: Another attempt has taken over.
    """
    for earlier in range(1, attempt):
        held = ledger.spool_position(campaign_id, earlier)
        batch = list(read(spool(campaign_id, earlier), after=held))
        if batch:
            _log.info("importing %d spooled entries of attempt %d", len(batch), earlier)
            ledger.append(campaign_id, attempt, batch, spool_of=earlier)
