"""How long to leave a tracker in peace after it was told something: fifty times as long as that took, within bounds.

What it costs to tell is requests, not numbers: what has come meanwhile goes into one request for each trial. So a
tracker that answers on the machines that train takes one or two in a hundred of one processor's time as long as a round
takes less than a third of a second, more where the longest rest does not allow it, and lags behind by seconds. What
people wait for is not left waiting: a campaign that has ended, and one that the tracker does not know.
"""

from __future__ import annotations

from typing import Final

SHORTEST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 15.0
_TIMES: Final = 50.0


def rest_seconds(telling_seconds: float) -> float:
    """Return the seconds to rest after a round that took so long."""
    return min(max(_TIMES * telling_seconds, SHORTEST_SECONDS), LONGEST_SECONDS)
