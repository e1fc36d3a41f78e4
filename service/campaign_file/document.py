"""Reads a campaign file: JSON or YAML, with duplicate keys refused instead of silently dropped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from spectune.service.campaign_file.json_text import read_json
from spectune.service.campaign_file.refusal import TextError
from spectune.service.campaign_file.yaml_text import read_yaml
from spectune.service.errors import Problem, SpecificationError

_BYTE_ORDER_MARK = "\ufeff"


def read_document(path: Path) -> Any:
    """Read a campaign file.

    Raises:
        SpecificationError: The file cannot be read, is neither JSON nor YAML, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else _not_text(error)
        raise SpecificationError([Problem("", f"the campaign file cannot be read ({reason})", str(path))]) from error
    return _parsed(text, str(path))


def parse_document(text: str) -> Any:
    """Read the text of a campaign file.

    Raises:
        SpecificationError: It is neither JSON nor YAML, or has a key twice; the text is not repeated.
    """
    return _parsed(text, None)


def _parsed(text: str, source: str | None) -> Any:
    """Read a text; one that begins with `{` is JSON, which is no subset of what YAML's readers take."""
    text = text.removeprefix(_BYTE_ORDER_MARK)
    language, read = ("JSON", read_json) if text.lstrip().startswith("{") else ("YAML", read_yaml)
    try:
        return read(text)
    except TextError as error:
        raise SpecificationError([Problem("", f"the campaign file is not {language} ({error})", source)]) from error


def _not_text(error: ValueError) -> str:
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else "its name holds a null character"
