"""The ledger: the one truth about campaigns, in SQLite or PostgreSQL."""

from spectune.service.ledger.access import AccessLedger
from spectune.service.ledger.ledger import Ledger
from spectune.service.ledger.pages import PagedLedger


class ServiceLedger(PagedLedger, AccessLedger):
    """The ledger as the service uses it: campaigns with owners, in pages; API keys; leases."""


__all__ = ["Ledger", "ServiceLedger"]
