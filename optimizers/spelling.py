"""What was probably meant by a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def refuse_unknown(kind: str, name: object, known: Iterable[str]) -> None:
    """Raise a ValueError unless `name` is one of `known`.

    Raises:
        ValueError: With the nearest known name, or all of them where none is near.
    """
    names = list(known)
    if name in names:
        return
    near = get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(map(repr, names))}"
    raise ValueError(f"unknown {kind}, {hint}: got {name!r}")
