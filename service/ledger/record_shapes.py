"""The shape of each kind of record: which fields it has, and what each may hold.

A database takes more than can be read back (SQLite keeps text in a column of numbers) or less (PostgreSQL refuses NUL),
so a record is checked before it is entered: what passes here, any of our databases holds and any door can show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from spectune.service.campaign.model.clean_text import clean_text
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.ledger.spool import DAMAGED

_LARGEST_INTEGER: Final = 2**31 - 1
_LARGEST_TIME: Final = 2**53
_DEEPEST: Final = 50
_NAMED_NUMBERS: Final = frozenset({"NaN", "Infinity", "-Infinity"})


class RecordError(ValueError):
    """A record is none that a driver writes, and can never be entered."""


def check_record(record: object) -> None:
    """Raise RecordError, with what is wrong, if a record cannot be entered."""
    if type(record) is not dict:
        raise RecordError(f"a record is a mapping: got {type(record).__name__}")
    kind = record.get("kind")
    if kind == DAMAGED:
        raise RecordError(f"the spool is damaged at byte {record.get('at_byte')}: got {record.get('found')}")
    shape = _SHAPES.get(kind) if type(kind) is str else None
    if shape is None:
        raise RecordError(f"a record of unknown kind: got {_shown(kind)}")
    for name, is_good in shape.items():
        if name not in record:
            raise RecordError(f"a record {kind} lacks {name}")
        if not is_good(record[name]):
            raise RecordError(f"a record {kind} with an impossible {name}: got {_shown(record[name])}")
    if kind == "trial_moved" and "execution" in record and not _is_mapping(record["execution"]):
        raise RecordError(f"a record {kind} with an impossible execution: got {_shown(record['execution'])}")


def _shown(value: object) -> str:
    return clean_text(ascii(value), longest=200)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_INTEGER


def _is_time(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_TIME


def _is_finite(value: object) -> bool:
    if type(value) is int:
        return abs(value) <= _LARGEST_TIME
    return type(value) is float and math.isfinite(value)


def _is_number(value: object) -> bool:
    return _is_finite(value) or (type(value) is str and value in _NAMED_NUMBERS)


def _is_text(value: object) -> bool:
    return type(value) is str and clean_text(value) == value


def _is_word(value: object) -> bool:
    return type(value) is str and len(value) <= 60 and _is_clean(value)


def _is_state(value: object) -> bool:
    return type(value) is str and value in _STATES


def _is_metrics(value: object) -> bool:
    return type(value) is dict and all(
        type(name) is str and _is_clean(name) and _is_number(number) for name, number in value.items()
    )


def _is_mapping(value: object) -> bool:
    return type(value) is dict and _is_json(value, _DEEPEST)


def _is_json(value: object, depth: int) -> bool:
    """Return whether a value is JSON that any database holds: no NaN, no unclean text, no endless nesting."""
    match value:
        case dict():
            return depth > 0 and all(_is_text(name) and _is_json(each, depth - 1) for name, each in value.items())
        case list():
            return depth > 0 and all(_is_json(each, depth - 1) for each in value)
        case str():
            return _is_text(value)
        case None | bool():
            return True
        case _:
            return _is_finite(value)


@lru_cache(maxsize=4096)
def _is_clean(name: str) -> bool:
    return clean_text(name) == name


_STATES: Final = frozenset(map(str, TrialState))
_Check = Callable[[object], bool]
_OF_TRIAL: Final[Mapping[str, _Check]] = {"trial": _is_count, "at": _is_time}
_SHAPES: Final[Mapping[str, Mapping[str, _Check]]] = {
    "trial_created": {
        **_OF_TRIAL,
        "arm": _is_count,
        "point": _is_count,
        "seed_index": _is_count,
        "config": _is_mapping,
        "ask": _is_mapping,
    },
    "trial_moved": {**_OF_TRIAL, "state": _is_state, "reason": _is_word, "message": _is_text},
    "trial_lost": {**_OF_TRIAL, "reason": _is_word, "message": _is_text},
    "observation": {
        **_OF_TRIAL,
        "step": _is_count,
        "metrics": _is_metrics,
        "objective": _is_number,
        "device_seconds": _is_finite,
    },
    "device_seconds": {**_OF_TRIAL, "device_seconds": _is_finite},
    "planned": {**_OF_TRIAL, "arm": _is_count, "plan": _is_mapping},
    "shrunk": {**_OF_TRIAL, "arm": _is_count, "to": _is_mapping},
    "quarantined": {**_OF_TRIAL, "message": _is_text},
    "fusion_checked": {**_OF_TRIAL, "arm": _is_count, "check": _is_mapping},
}
