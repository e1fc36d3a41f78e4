"""A real MLflow server behind a way to it, which falls ill while a campaign runs and gets well when it has ended.

healthy     it answers
down        it is down from the start
outage      once half of the campaign is there it is killed -9 while it writes a batch
refusing    it answers every third request with 500
slow        it answers after ten seconds
"""

from __future__ import annotations

from typing import Final

from tests.fakes.faulty_proxy import Fault, FaultyProxy
from tests.fakes.mlflow_server import PrivateMlflow

WAYS: Final = ("healthy", "down", "outage", "refusing", "slow")
SLOW_SECONDS: Final = 10.0


class IllMlflow:
    """A server that is told by a test how a campaign goes."""

    def __init__(self) -> None:
        self.server = PrivateMlflow()
        self._proxy = FaultyProxy(self.server.port, self._fault, before_cut=self.server.kill)
        self._way = ""
        self._kills_next = False

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
        self._kills_next = self._way == "outage"

    def end(self) -> None:
        """Be told that it has ended: get well."""
        self._way, self._kills_next, self._proxy.delay_seconds = "", False, 0.0
        if not self.server.is_alive:
            self.server.start()

    def remove(self) -> None:
        """End the server."""
        self._proxy.close()
        self.server.remove()

    def _fault(self, number: int, path: str) -> Fault:
        if self._kills_next and path.endswith("/log-batch"):
            self._kills_next = False
            return Fault.CUT
        return Fault.REFUSED if self._way == "refusing" and number % 3 == 0 else Fault.NONE
