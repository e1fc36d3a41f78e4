"""Cursors of pages: opaque to clients, checked when they come back.

A cursor is the order and the key after which the next page begins, as base64 of JSON. It holds nothing secret, and a
forged one only chooses another place in the same list.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from spectune.service.errors import Problem, SpecificationError

Key = tuple[Any, ...]


def encode(order_by: str, key: Key) -> str:
    """Write a cursor."""
    return base64.urlsafe_b64encode(json.dumps([order_by, *key]).encode()).decode().rstrip("=")


def decode(cursor: str | None, *, order_by: str, like: tuple[type, ...]) -> Key | None:
    """Read a cursor.

    Args:
        cursor: What `encode` wrote; None for the first page.
        order_by: The order that is asked for now.
        like: The types of the key's parts.

    Raises:
        SpecificationError: It is none of ours, or of another order.
    """
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        order, *key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError) as error:
        raise SpecificationError([Problem("cursor", "not a cursor that this service gave")]) from error
    if order != order_by or len(key) != len(like) or not all(map(_is_like, key, like)):
        raise SpecificationError([Problem("cursor", "this cursor belongs to another list")])
    return tuple(key)


def _is_like(value: Any, kind: type) -> bool:
    if kind is int:
        return type(value) is int and abs(value) < 2**63
    if kind is float:
        return type(value) in (int, float) and abs(value) < 1e308 and math.isfinite(value)
    return type(value) is str and "\0" not in value and not any("\ud800" <= each <= "\udfff" for each in value)
