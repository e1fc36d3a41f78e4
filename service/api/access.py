"""Who may call a route: `Authorization: Bearer KEY`, or nothing at all while the ledger has no key.

Without keys the service listens on loopback alone (`service.server` refuses anything else), and whoever reaches it is
its owner.
"""

from __future__ import annotations

from fastapi import Request

from service.api.context import LOCAL_OWNER, Caller, context_of
from service.errors import AccessError
from service.ledger.access import Role


class Gate:
    """A dependency that lets callers of a role pass, and notes who they are.

    Args:
        role: The least that is needed.
    """

    def __init__(self, role: Role) -> None:
        self._role = role

    def __call__(self, request: Request) -> None:
        """Let the caller pass.

        Raises:
            AccessError: No key, a wrong one, or one whose role does not suffice.
        """
        caller = _find_caller(request)
        if not caller.role.includes(self._role):
            raise AccessError(f"this needs a key of role {self._role}: got {caller.role}", status=403)
        request.state.caller = caller


def _find_caller(request: Request) -> Caller:
    ledger = context_of(request).ledger
    if not ledger.has_keys():
        return Caller(owner=LOCAL_OWNER, role=Role.ADMIN)
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise AccessError("a key is needed, as `Authorization: Bearer KEY`: got none", status=401)
    found = ledger.find_key(key.strip())
    if found is None:
        raise AccessError("this key is wrong or revoked", status=401)
    return Caller.of_key(found)
