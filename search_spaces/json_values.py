"""Questions about JSON values, where Python would answer too generously (to it, true is a number), and pointers."""

from __future__ import annotations

import math
from typing import Any

LARGEST_INTEGER = 2**63
"""Beyond it databases and float conversions give up."""


def is_number(value: object) -> bool:
    """Return whether a JSON value is a finite number; true and false are none, nor is an integer beyond ±2⁶³."""
    if isinstance(value, int):
        return is_integer(value) and abs(value) <= LARGEST_INTEGER
    return isinstance(value, float) and math.isfinite(value)


def is_integer(value: object) -> bool:
    """Return whether a JSON value is an integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_same(one: Any, other: Any) -> bool:
    """Compare JSON values: 1 equals 1.0, but true is no number."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(is_same(a, b) for a, b in zip(one, other, strict=True))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def json_pointer(*keys: str | int) -> str:
    """Write the JSON pointer (RFC 6901) that leads through some keys."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)
