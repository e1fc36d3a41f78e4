"""What may vary: domains, spaces made of them, and the space that ships with each optimizer."""

from __future__ import annotations

from search_spaces.catalog import DEFAULT_SPACES, default_space
from search_spaces.domains import (
    Choice,
    Domain,
    Fixed,
    Integer,
    LogInteger,
    LogUniform,
    OneMinusLogUniform,
    Uniform,
    When,
    ZeroOrLogUniform,
)
from search_spaces.parsing import parse_space
from search_spaces.space import DomainError, Space, SpaceError

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
