"""What may vary: domains, spaces made of them, and the space that ships with each optimizer."""

from __future__ import annotations

from spectune.search_spaces.catalog import DEFAULT_SPACES, default_space
from spectune.search_spaces.conditions import When
from spectune.search_spaces.domains import (
    Choice,
    Domain,
    Fixed,
    Integer,
    LogInteger,
    LogUniform,
    OneMinusLogUniform,
    Uniform,
    ZeroOrLogUniform,
)
from spectune.search_spaces.parsing import parse_space
from spectune.search_spaces.space import DomainError, Space, SpaceError

__all__ = [
    "DEFAULT_SPACES",
    "Choice",
    "Domain",
    "DomainError",
    "Fixed",
    "Integer",
    "LogInteger",
    "LogUniform",
    "OneMinusLogUniform",
    "Space",
    "SpaceError",
    "Uniform",
    "When",
    "ZeroOrLogUniform",
    "default_space",
    "parse_space",
]
