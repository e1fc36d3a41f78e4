"""Writes the OpenAPI document: `python -m spectune.service.api.openapi > docs/openapi.json`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from spectune.service.api.application import create_application
from spectune.service.api.context import Context
from spectune.service.campaign.specification.catalog import installed_catalog
from spectune.service.ledger import ServiceLedger
from spectune.service.settings import Settings


def document() -> dict[str, Any]:
    """Describe the service in OpenAPI 3.1."""
    with tempfile.TemporaryDirectory() as folder, ServiceLedger.at(Path(folder) / "ledger.sqlite") as ledger:
        context = Context(ledger=ledger, catalog=installed_catalog(), settings=Settings(), suffix=lambda: "0")
        return dict(create_application(context).openapi())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=1, sort_keys=True) + "\n")
