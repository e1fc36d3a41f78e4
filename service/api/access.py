"""Who may call a route: `Authorization: Bearer KEY`, a browser's cookie, or nothing while the ledger has no key.

Without keys the service listens on loopback alone (`service.server` refuses anything else), and whoever reaches it is
its owner. A browser reaches it for any page that it shows: what another site's page asks for is refused, by the origin
that browsers tell, and, without keys, by the name under which the service is called, which such a page can only have
made its own if it is a name of the internet.

A cookie comes along with whatever a browser sends, so a key in a cookie does not suffice to change anything: the token
that our own pages carry must be there too.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from contextlib import suppress

from fastapi import Request

from spectune.service.api.context import LOCAL_OWNER, Caller, context_of
from spectune.service.errors import AccessError
from spectune.service.ledger.access import Role

KEY_COOKIE = "spectune_key"
TOKEN_HEADER = "X-CSRF-Token"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


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
            AccessError: No key, a wrong one, one whose role does not suffice, or another site's page.
        """
        caller = _find_caller(request)
        if not caller.role.includes(self._role):
            raise AccessError(f"this needs a key of role {self._role}: got {caller.role}", status=403)
        request.state.caller = caller


def token_of(request: Request) -> str:
    """Return the token with which our pages show that it is they who ask; empty for a caller without a cookie."""
    key = request.cookies.get(KEY_COOKIE, "")
    return hmac.new(key.encode(), b"token of the pages", hashlib.sha256).hexdigest() if key else ""


def _find_caller(request: Request) -> Caller:
    ledger = context_of(request).ledger
    if request.method not in _SAFE:
        refuse_other_sites(request)
    if not ledger.has_keys():
        _refuse_names_of_the_internet(request)
        return Caller(owner=LOCAL_OWNER, role=Role.ADMIN)
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if not scheme and KEY_COOKIE in request.cookies:
        key = request.cookies[KEY_COOKIE]
        _refuse_forgeries(request)
    elif scheme.lower() != "bearer":
        raise AccessError("a key is needed, as `Authorization: Bearer KEY`: got none", status=401)
    found = ledger.find_key(key.strip())
    if found is None:
        raise AccessError("this key is wrong or revoked", status=401)
    return Caller.of_key(found)


def refuse_other_sites(request: Request) -> None:
    """Refuse what a page of another origin wants to change.

    Browsers tell whose page asks (`Sec-Fetch-Site`) or, older ones and without encryption, its origin; programs do not.

    Raises:
        AccessError: It is another site's.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    is_ours = site in ("same-origin", "none") if site is not None else origin is None or _is_ours(origin, request)
    if not is_ours:
        raise AccessError("a page of another site may change nothing here", status=403)


def _is_ours(origin: str, request: Request) -> bool:
    return origin.partition("://")[2] == request.headers.get("host", "")


def _refuse_names_of_the_internet(request: Request) -> None:
    """Refuse to be called by a name that anybody can let point here; addresses and names without a dot are ours."""
    name = re.sub(r":\d*$", "", request.headers.get("host", "")).strip("[]")
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return
    if "." in name and not name.endswith(".localhost"):
        message = "without keys the service answers to localhost and addresses alone (spectune keys create)"
        raise AccessError(message, status=403)


def _refuse_forgeries(request: Request) -> None:
    if request.method in _SAFE:
        return
    given = request.headers.get(TOKEN_HEADER, "")
    if not hmac.compare_digest(given.encode(), token_of(request).encode()):
        raise AccessError(f"with a cookie, the header {TOKEN_HEADER} of our own pages is needed", status=403)
