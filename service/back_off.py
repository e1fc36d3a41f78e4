"""Back-off: how long to wait after failures in a row."""

from __future__ import annotations

from typing import Final

_MOST_DOUBLINGS: Final = 64  # a float holds 2⁶⁴ seconds; what fails for weeks must not fail in here


def back_off_seconds(num_before: int, *, first: float, longest: float) -> float:
    """Return the seconds to wait after a failure: twice as long after each one in a row, up to a bound.

    Args:
        num_before: The failures in a row before this one.
        first: Seconds after the first failure.
        longest: The bound, in seconds.
    """
    return min(first * 2.0 ** min(num_before, _MOST_DOUBLINGS), longest)
