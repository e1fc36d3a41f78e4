"""Generated problems are kept, so that trials of one data seed share them and no step pays for them again.

What is kept is bounded in bytes, not in number: a hundred problems of 20 × 20 are nothing, two of 8192 × 8192 are more
than a worker has. The least recently used go first. A problem that alone is larger than the bound displaces all others
and is kept by itself: whoever trains on it holds it anyway, and would wait for it to be drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import RLock
from typing import Any, Final, ParamSpec, TypeVar

from cachetools import LRUCache, cached
from cachetools.keys import hashkey
from torch import Tensor

KEPT_BYTES: Final = 256 * 2**20
"""What all problems of a process may hold together."""

_Arguments = ParamSpec("_Arguments")
_Problem = TypeVar("_Problem")


def problem_bytes(problem: Any) -> int:
    """Count the bytes of a problem, a tensor or nested tuples with tensors among other things; shared ones once."""
    found: dict[int, int] = {}
    waiting = [problem]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Tensor):
            found[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
        elif isinstance(part, tuple):
            waiting.extend(part)
    return sum(found.values())


def _size(problem: Any) -> int:
    return min(problem_bytes(problem), KEPT_BYTES)


kept_problems: LRUCache[Hashable, Any] = LRUCache(KEPT_BYTES, getsizeof=_size)
"""Problems by the name of the function that generated them and its arguments."""

_lock = RLock()


def kept(generate: Callable[_Arguments, _Problem]) -> Callable[_Arguments, _Problem]:
    """Keep what a function of a task and seeds generates; for all such functions together there is one bound."""

    def key(*arguments: Hashable) -> Hashable:
        return hashkey(f"{generate.__module__}.{generate.__qualname__}", *arguments)

    return cached(kept_problems, key=key, lock=_lock)(generate)
