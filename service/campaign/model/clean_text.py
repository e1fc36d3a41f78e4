"""Text from outside, cleaned and cut once, where it becomes part of a record.

A user's code, the operating system and other programs may say anything: half a surrogate pair (from a file name that is
no UTF-8), NUL, which PostgreSQL refuses, control sequences of a terminal, or thirty megabytes.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST_TEXT: Final = 64 * 1024
"""Bytes of UTF-8 that are kept of a text, half of them from its end."""

_UNWANTED: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline
    "\u2028\u2029"  # line and paragraph separators
    "\u202a-\u202e\u2066-\u2069"  # what turns the direction of writing
    "\ud800-\udfff"  # half a surrogate pair
    "\ufdd0-\ufdef\ufffe\uffff]"  # no characters
)


_MARGIN: Final = 200  # for the line between, so that a text that was cut is not cut again


def clean_text(text: str, *, longest: int = LONGEST_TEXT) -> str:
    r"""Return a text that any store, page and terminal can hold.

    What none could hold is written as Python writes it, such as `\x1b` or `\udce9`. Of a text that is too long the
    head and the tail stay, and a line between them says how long it was. A clean text is returned as it is.

    Args:
        text: Anything.
        longest: Bytes of UTF-8 to keep, but for the line between.
    """
    if len(text) > 2 * longest:  # not to look at megabytes
        head, tail = _cleaned(text[:longest]), _cleaned(text[-longest:])
    else:
        head = tail = _cleaned(text)
        if len(head.encode()) <= longest + _MARGIN:
            return head
    start = head.encode()[: longest // 2].decode(errors="ignore")
    end = tail.encode()[-(longest // 2) :].decode(errors="ignore")
    return f"{start}\n[... cut: the text had {len(text)} characters ...]\n{end}"


def _cleaned(text: str) -> str:
    return _UNWANTED.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))
