"""The one error of the readers, and what both of them check about text."""

from __future__ import annotations


class TextError(Exception):
    """A text that is not what its language allows, or that is not taken: why, and on which line."""


def at_line(message: str, line: int | None) -> str:
    """Return a message with the line, counted from 1, to which it belongs."""
    return message if line is None else f"{message}, line {line}"


def joined_surrogates(text: str) -> str:
    r"""Return text in which each pair of surrogates, as `\ud83d\ude00` is read, is the one character it stands for.

    Raises:
        UnicodeDecodeError: One of a pair stands alone, which is no character and can be stored nowhere.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
