"""A real MLflow server behind a way to it, which falls ill while a campaign runs and gets well when it has ended.

healthy     it answers
down        it is down from the start
outage      once half of the campaign is there it is killed -9 while it writes the next batch, which may be the last
refusing    it answers every third request with 500
slow        it answers after ten seconds
"""

from __future__ import annotations

import threading
from typing import Final

from tests.fakes.faulty_proxy import Fault, FaultyProxy
from tests.fakes.mlflow_server import PrivateMlflow

WAYS: Final = ("healthy", "down", "outage", "refusing", "slow")
SLOW_SECONDS: Final = 10.0
_KILL_SECONDS: Final = 60.0


class IllMlflow:
    """A server that is told by a test how a campaign goes."""

    def __init__(self) -> None:
        self.server = PrivateMlflow()
        self._proxy = FaultyProxy(self.server.port, self._fault, before_cut=self._kill)
        self._way = ""
        self._kills_next = False
        self._is_killed = threading.Event()
        self._is_killed.set()

    @property
    def address(self) -> str:
        """Where it is asked."""
        return self._proxy.address

    def begin(self, way: str) -> None:
        """Be told that a campaign begins."""
        self._way = way
        self._proxy.delay_seconds = SLOW_SECONDS if way == "slow" else 0.0
        if way == "down":
            self.server.kill()

    def half_way(self) -> None:
        """Be told that half of it is there."""
        if self._way == "outage":
            self._is_killed.clear()
            self._kills_next = True

    def end(self) -> None:
        """Be told that it has ended: get well."""
        self._proxy.delay_seconds, self._way = 0.0, ""
        assert self._is_killed.wait(_KILL_SECONDS), f"no batch came within {_KILL_SECONDS:g} s to be killed in"
        if not self.server.is_alive:
            self.server.start()

    def remove(self) -> None:
        """End the server."""
        self._proxy.close()
        self.server.remove()

    def _kill(self) -> None:
        self.server.kill()
        self._is_killed.set()

    def _fault(self, number: int, path: str) -> Fault:
        if self._kills_next and path.endswith("/log-batch"):
            self._kills_next = False
            return Fault.CUT
        return Fault.REFUSED if self._way == "refusing" and number % 3 == 0 else Fault.NONE
