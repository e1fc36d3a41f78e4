"""Leases: of several replicas one leads, for a while, by the database's clock."""

from __future__ import annotations

from sqlalchemy import Connection, update

from spectune.service.errors import LeadershipError
from spectune.service.ledger.ledger import Ledger
from spectune.service.ledger.statements import insert_or_ignore
from spectune.service.ledger.tables import leases


class LeaseLedger(Ledger):
    """The ledger's leases."""

    def take_lease(self, name: str, *, holder: str, seconds: float) -> bool:
        """Take a lease that nobody holds, or prolong one's own.

        Returns:
            Whether `holder` has it for the next `seconds`.
        """
        until = self._clock() + int(seconds * 1000)
        free = (leases.c.holder == holder) | (leases.c.expires_at < self._clock())
        with self._transaction() as connection:
            take = update(leases).where((leases.c.name == name) & free).values(holder=holder, expires_at=until)
            if connection.execute(take).rowcount == 1:
                return True
            values = {"name": name, "holder": holder, "expires_at": until}
            return insert_or_ignore(connection, leases, values)

    def leave_lease(self, name: str, *, holder: str) -> None:
        """Give a lease back, so that another need not wait for its end."""
        with self._transaction() as connection:
            mine = (leases.c.name == name) & (leases.c.holder == holder)
            connection.execute(update(leases).where(mine).values(expires_at=0))

    def _check_lease(self, connection: Connection, name: str, holder: str) -> None:
        """Make sure, for the rest of the transaction, that `holder` has the lease."""
        mine = (leases.c.name == name) & (leases.c.holder == holder) & (leases.c.expires_at > self._clock())
        if connection.execute(update(leases).where(mine).values(holder=holder)).rowcount != 1:
            raise LeadershipError(f"the lease {name!r} is another's, or has run out: got {holder!r}")
