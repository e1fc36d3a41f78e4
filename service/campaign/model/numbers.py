"""Numbers as JSON and as text; NaN and the infinities are everywhere the words "NaN", "Infinity" and "-Infinity"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def number_text(value: float, *, digits: int = 4) -> str:
    """Return a number as people read it, with so many significant digits."""
    return f"{value:.{digits}g}" if math.isfinite(value) else str(to_json(value))


def interval_text(value: float, half_width: float | None, *, digits: int = 4) -> str:
    """Return a mean with half the width of its 95 % interval, as "0.0036 ± 0.021"; without one, the value alone."""
    return number_text(value, digits=digits) + ("" if half_width is None else f" ± {_width_text(half_width)}")


def _width_text(value: float) -> str:
    return f"{value:#.2g}" if math.isfinite(value) else number_text(value)


def plain_json(value: Any) -> Any:
    """Return a value with every number that JSON lacks replaced by its word, in mappings and lists of any depth."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(each) for each in value]
    return to_json(value) if isinstance(value, float) else value


def to_json(value: float) -> float | str:
    """Return a number as JSON has it: itself if it is finite, else its word."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def from_json(value: float | str) -> float:
    """Read what `to_json` wrote.

    Raises:
        ValueError: A string that is not one of the three names.
    """
    if isinstance(value, str):
        if value not in _WORDS:
            raise ValueError(f"a number must be finite or one of {sorted(_WORDS)}: got {value!r}")
        return _WORDS[value]
    return float(value)


def metrics_to_json(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """Say a report's metrics in JSON."""
    return {name: to_json(value) for name, value in metrics.items()}


def metrics_from_json(metrics: Mapping[str, float | str]) -> dict[str, float]:
    """Read a report's metrics from JSON."""
    return {name: from_json(value) for name, value in metrics.items()}


def kind_of(value: float) -> str:
    """Name a number's kind for a `..._kind` column: finite, nan, inf or -inf."""
    if math.isfinite(value):
        return "finite"
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def from_column(value: float | None, kind: str | None) -> float | None:
    """Read a column with its kind; None where nothing was observed yet."""
    match kind:
        case None:
            return None
        case "finite":
            return value
        case "nan" | "inf" | "-inf":
            return float(kind)
        case _:
            raise ValueError(f"unknown kind of number: got {kind!r}")
