"""Trouble with single campaigns: it is logged once, backs off, and holds up no other campaign."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spectune.service.back_off import back_off_seconds

SHORTEST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 300.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Failure:
    sentence: str
    state: str
    num_in_a_row: int
    again_at: float


class Trouble:
    """What went wrong with campaigns since each last did well.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, _Failure] = {}

    def is_waiting(self, campaign_id: str, *, state: str) -> bool:
        """Return whether a campaign is to be left alone for now: not if it is in another state than when it failed."""
        failure = self._failures.get(campaign_id)
        return failure is not None and failure.state == state and self._clock() < failure.again_at

    def enter(self, campaign_id: str, error: Exception, *, state: str) -> str:
        """Record that something failed, and return the sentence that says so; the pause doubles each time.

        A mistake of ours is logged with its traceback, once; trouble that lasts is logged again when it changes.
        """
        sentence = f"{type(error).__name__}: {error}"
        before = self._failures.get(campaign_id)
        num_in_a_row = 1 if before is None else before.num_in_a_row + 1
        pause = back_off_seconds(num_in_a_row - 1, first=SHORTEST_PAUSE_SECONDS, longest=LONGEST_PAUSE_SECONDS)
        if before is None or before.sentence != sentence:
            _log.error("campaign %s cannot be looked after: %s", campaign_id, sentence, exc_info=error)
        self._failures[campaign_id] = _Failure(sentence, state, num_in_a_row, self._clock() + pause)
        return sentence

    def clear(self, campaign_id: str) -> bool:
        """Forget what was wrong with a campaign: it was looked after; return whether anything was wrong."""
        if self._failures.pop(campaign_id, None) is None:
            return False
        _log.info("campaign %s is looked after again", campaign_id)
        return True

    def keep_only(self, campaign_ids: set[str]) -> None:
        """Forget campaigns that are not live any more."""
        for campaign_id in set(self._failures) - campaign_ids:
            del self._failures[campaign_id]

    def sentences(self) -> Mapping[str, str]:
        """Return what is wrong, by campaign."""
        return {campaign_id: failure.sentence for campaign_id, failure in self._failures.copy().items()}
