"""What a task generates from a seed is generated once and kept, within `MAX_KEPT_BYTES` for all problems together.

A population of 64 trials with 64 data seeds asks for 64 problems at each step: a bound in numbers of problems would be
either too small for the small ones or too large for the large ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from cachetools import LRUCache, cached
from cachetools.keys import hashkey
from torch import Tensor

MAX_KEPT_BYTES: Final = 256 * 2**20
_OVERHEAD_BYTES: Final = 1024  # of an entry: key, tuple, tensor objects

_Arguments = ParamSpec("_Arguments")
_Problem = TypeVar("_Problem")


def num_bytes(problem: Any) -> int:
    """Count the bytes of a problem: a tensor, a plain value, or a tuple of these."""
    if isinstance(problem, Tensor):
        return problem.untyped_storage().nbytes()
    return sum(map(num_bytes, problem)) if isinstance(problem, tuple) else 0


_problems: Final[LRUCache[Any, Any]] = LRUCache(
    MAX_KEPT_BYTES, getsizeof=lambda each: num_bytes(each) + _OVERHEAD_BYTES
)
_lock: Final = threading.Lock()


def kept(generate: Callable[_Arguments, _Problem]) -> Callable[_Arguments, _Problem]:
    """Keep what a pure function of hashable arguments gives; a problem above the bound is generated at every call."""

    def key(*args: Any, **kwargs: Any) -> Any:
        return hashkey(generate, *args, **kwargs)

    return cached(_problems, key=key, lock=_lock)(generate)
