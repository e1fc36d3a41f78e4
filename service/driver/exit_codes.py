"""How a driver's process says how it ended."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit status of `python -m spectune.service.driver`."""

    DONE = 0  # the campaign reached its end, SUCCEEDED or FAILED
    CANCELLED = 10
    PAUSED = 11
    FENCED = 12  # another attempt has taken over
    INFRASTRUCTURE = 20  # worth another attempt
    CLUSTER_AWAY = 21  # worth another attempt, and nobody's failure: the cluster does not answer
    SPECIFICATION = 30  # the campaign cannot be trained on this machine as it is now
