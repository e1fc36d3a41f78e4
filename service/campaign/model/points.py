"""Points of an arm: configurations, where they came from, and when two of them are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from spectune.search_spaces.axes import Coordinate


class Origin(StrEnum):
    """Where a point came from."""

    INITIAL = "initial"  # the user gave it
    SAMPLER = "sampler"
    REDRAWN = "redrawn"  # the adaptive sampler only repeated itself, so it was drawn at random


@dataclass(frozen=True)
class Point:
    """One configuration of an arm.

    Attributes:
        index: Its number within the arm, from 0.
        config: Every hyperparameter that is set, the fixed ones included.
        origin: Where it came from.
        coordinates: Where it lies on every axis of the space, those that do not count in it included.
    """

    index: int
    config: Mapping[str, Any]
    origin: Origin
    coordinates: Mapping[str, Coordinate]

    @property
    def ask(self) -> dict[str, Any]:
        """What has to be kept beside index and config to restore a study, as JSON."""
        return {"origin": self.origin.value, "coordinates": dict(self.coordinates)}

    @classmethod
    def from_ask(cls, index: int, config: Mapping[str, Any], ask: Mapping[str, Any]) -> Self:
        """Make the point again from what was kept."""
        return cls(index=index, config=config, origin=Origin(ask["origin"]), coordinates=ask["coordinates"])


def fingerprint(config: Mapping[str, Any]) -> str:
    """Write a configuration so that equal ones are equal text: 12 digits, 1 like 1.0, names in order."""
    return json.dumps({name: _plain(value) for name, value in config.items()}, sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(f"{value:.12g}") + 0.0  # -0.0 becomes 0.0
    return value
