"""What is wrong with an option a user gave: one error type that the campaign can point at."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class OptionError(ValueError):
    """An option that cannot be used.

    Attributes:
        option: The option's name, as the user wrote it.
        message: What is wrong, without the value.
        value: What was given.
    """

    def __init__(self, option: str, message: str, value: Any) -> None:
        super().__init__(f"{option}: {message}: got {value!r}")
        self.option = option
        self.message = message
        self.value = value

    def __reduce__(self) -> tuple[type[OptionError], tuple[str, str, Any]]:
        return type(self), (self.option, self.message, self.value)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is not known, with the nearest one that is, else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return f"unknown {kind} ({hint})"
