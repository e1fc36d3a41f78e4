"""Follows all campaigns of a service: a thread that brings the tracker up to date, whatever becomes of it meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from spectune.service.campaign.model.records import CampaignRecord
from spectune.service.tracking.breaker import Breaker
from spectune.service.tracking.links import ATTACHMENTS, MLFLOW
from spectune.service.tracking.pacing import rest_seconds
from spectune.service.tracking.projector import Projector

LOOK_SECONDS = 1.0
_MOST_FAILURES = 3  # of one round

_log = logging.getLogger(__name__)


class CampaignList(Protocol):
    """What the follower needs of the ledger."""

    def campaigns(self) -> list[CampaignRecord]:
        """Read all campaigns."""

    def cursor(self, tracker: str, campaign_id: str) -> int:
        """Return how far a tracker has followed a campaign."""


def is_behind(ledger: CampaignList, campaign: CampaignRecord) -> bool:
    """Return whether MLflow lacks anything of a campaign: what has happened or, once it has ended, its documents."""
    trackers = (MLFLOW, ATTACHMENTS) if campaign.state.is_terminal else (MLFLOW,)
    return any(ledger.cursor(tracker, campaign.campaign_id) < campaign.sequence for tracker in trackers)


class Follower:
    """A thread that projects.

    Args:
        ledger: Lists the campaigns.
        make_projectors: Makes projectors for campaigns, inside the thread: trackers are slow to import and to open.
        lead: Asked before each window; of several replicas one may project.
    """

    def __init__(
        self,
        ledger: CampaignList,
        make_projectors: Callable[[Sequence[str]], Sequence[Projector]],
        *,
        lead: Callable[[], bool] = lambda: True,
    ) -> None:
        self._ledger = ledger
        self._make_projectors = make_projectors
        self._lead = lead
        self._breaker = Breaker()
        self._projectors: dict[str, Projector] = {}
        self._num_failures: Counter[str] = Counter()  # in a row, by campaign
        self._ending = threading.Event()
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def end(self, *, timeout_seconds: float) -> None:
        """End after the window that is being projected; what is left is projected by the next service."""
        self._ending.set()
        self._thread.join(timeout_seconds)

    def problem(self) -> str | None:
        """Return why the tracker lags behind, if it does."""
        return self._problem

    def catch_up(self) -> None:
        """Bring the tracker up to date with every campaign once, as far as this replica leads.

        A campaign that cannot be told does not hold up the others, but a tracker that fails again and again is left
        alone: it may take half a minute to say so.

        Raises:
            Exception: What came of the first campaign that could not be told.
        """
        behind = [each.campaign_id for each in self._ledger.campaigns() if is_behind(self._ledger, each)]
        behind.sort(key=self._num_failures.__getitem__)  # those that fail again and again keep no other waiting
        fresh = [campaign_id for campaign_id in behind if campaign_id not in self._projectors]
        if fresh and self._lead():
            self._projectors |= dict(zip(fresh, self._make_projectors(fresh), strict=True))
        failures: list[Exception] = []
        for step in (self._project, self._attach):  # no campaign waits for another's documents
            for campaign_id in behind:
                try:
                    step(campaign_id)
                    del self._num_failures[campaign_id]
                except Exception as error:
                    self._num_failures[campaign_id] += 1
                    failures.append(error)
                    if len(failures) == _MOST_FAILURES:
                        raise failures[0] from None
        if failures:
            raise failures[0]

    def _is_awaited(self) -> bool:
        """Return whether there is news that people wait for: a campaign that has ended, or that the tracker has not."""
        return any(
            (campaign.state.is_terminal or campaign.campaign_id not in self._projectors)
            and is_behind(self._ledger, campaign)
            for campaign in self._ledger.campaigns()
        )

    def _project(self, campaign_id: str) -> None:
        while not self._ending.is_set() and self._lead() and self._projectors[campaign_id].project():
            pass

    def _attach(self, campaign_id: str) -> None:
        if not self._ending.is_set() and self._lead():
            self._projectors[campaign_id].attach()

    def _run(self) -> None:
        rests_until = 0.0
        while not self._ending.wait(LOOK_SECONDS):
            if self._breaker.is_open():
                continue
            try:
                began = time.monotonic()
                if began < rests_until and not self._is_awaited():
                    continue
                self.catch_up()
                rests_until = time.monotonic() + rest_seconds(time.monotonic() - began)
                self._breaker.succeed()
                self._problem = None
            except Exception as error:  # a tracker may fail in its own ways; campaigns go on
                wait_seconds = self._breaker.fail()
                if self._problem is None:
                    _log.warning("the tracker lags behind and is tried again in %g s: %s", wait_seconds, error)
                self._problem = f"the tracker lags behind: {type(error).__name__}"
