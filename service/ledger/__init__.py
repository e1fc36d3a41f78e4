"""The ledger: the one truth about campaigns, in SQLite or PostgreSQL."""

from service.ledger.ledger import Ledger

__all__ = ["Ledger"]
