"""RAY_ADDRESS: the cluster that `spectune run` joins, looked at before a campaign begins.

Ray itself waits for minutes for a cluster that is not there, and says so only in the driver's log.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from spectune.service.errors import SettingsError

CONNECT_SECONDS = 5.0
_FOUND_BY_RAY = "auto"  # the Ray that was started on this machine last, which may have ended since


def require_cluster(environment: Mapping[str, str] = os.environ) -> None:
    """Find out whether anything answers where RAY_ADDRESS points; nothing is asked where it is not set.

    Raises:
        SettingsError: It names no head of a cluster, or nothing answers there.
    """
    address = environment.get("RAY_ADDRESS")
    if not address:
        return
    host, _, port = (_found() if address == _FOUND_BY_RAY else address).rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 2**16):
        raise SettingsError(f"RAY_ADDRESS: HOST:PORT of a cluster's head is needed, or nothing: got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"RAY_ADDRESS: no cluster answers there ({why}): got {address!r}") from error


def _found() -> str:
    """Let Ray find the head on this machine, as `auto` asks it to."""
    from ray._private.services import canonicalize_bootstrap_address_or_die  # loads Ray, which others do without

    try:
        return str(canonicalize_bootstrap_address_or_die(_FOUND_BY_RAY))
    except ConnectionError as error:
        raise SettingsError(f"RAY_ADDRESS: no Ray runs on this machine: got {_FOUND_BY_RAY!r}") from error
