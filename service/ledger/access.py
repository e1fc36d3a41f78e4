"""API keys: who may do what. A key is shown once; the ledger keeps the SHA-256 of its 256 random bits.

A key reads `spk_<id>_<secret>`. The id finds the row; the secret is compared in constant time, and where there is no
row against nothing, so that a wrong id takes as long as a wrong secret.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import func, insert, select, update

from spectune.service.ledger.ledger import Ledger
from spectune.service.ledger.tables import api_keys

_PREFIX = "spk"
_NOBODY = hashlib.sha256(b"").hexdigest()


class Role(StrEnum):
    """What a key may do; each may what the ones before it may."""

    VIEWER = "viewer"  # read the campaigns of its owner
    SUBMITTER = "submitter"  # submit and change campaigns of its owner
    ADMIN = "admin"  # all campaigns

    def includes(self, other: Role) -> bool:
        """Return whether this role may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class KeyRecord:
    """An API key, without its secret."""

    key_id: str
    owner: str
    role: Role
    created_at: int
    revoked_at: int | None


class AccessLedger(Ledger):
    """The ledger's API keys."""

    def create_key(self, *, owner: str, role: Role) -> str:
        """Make a key.

        Returns:
            The key itself, which can never be read again.
        """
        key_id, secret = secrets.token_hex(4), secrets.token_hex(32)
        values = {"id": key_id, "owner": owner, "role": role, "hash": _hash(secret), "created_at": self._now()}
        with self._transaction() as connection:
            connection.execute(insert(api_keys).values(values))
        return f"{_PREFIX}_{key_id}_{secret}"

    def revoke_key(self, key_id: str) -> bool:
        """Make a key useless; tell whether it was of use before."""
        valid = (api_keys.c.id == key_id) & api_keys.c.revoked_at.is_(None)
        with self._transaction() as connection:
            return connection.execute(update(api_keys).where(valid).values(revoked_at=self._now())).rowcount == 1

    def list_keys(self) -> list[KeyRecord]:
        """List all keys, revoked ones too, the oldest first."""
        with self._reading() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)).all()
        return [_record(row) for row in rows]

    def has_keys(self) -> bool:
        """Return whether there is any key that is not revoked."""
        query = select(func.count()).select_from(api_keys).where(api_keys.c.revoked_at.is_(None))
        with self._reading() as connection:
            return bool(connection.execute(query).scalar_one())

    def find_key(self, key: str) -> KeyRecord | None:
        """Find whose key this is; None for a wrong or revoked one."""
        prefix, _, rest = key.partition("_")
        key_id, _, secret = rest.partition("_")
        with self._reading() as connection:
            row = connection.execute(select(api_keys).where(api_keys.c.id == key_id[:16])).one_or_none()
        is_right = hmac.compare_digest(_hash(secret), _NOBODY if row is None else str(row.hash))
        if row is None or not is_right or prefix != _PREFIX or row.revoked_at is not None:
            return None
        return _record(row)


def _record(row: object) -> KeyRecord:
    fields = {name: getattr(row, name) for name in ("owner", "created_at", "revoked_at")}
    return KeyRecord(key_id=row.id, role=Role(row.role), **fields)  # type: ignore[attr-defined]


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
