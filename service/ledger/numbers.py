"""Numbers that JSON cannot say: NaN and the infinities travel as the strings "NaN", "Infinity", "-Infinity"."""

from __future__ import annotations

import math
from collections.abc import Mapping

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json(value: float) -> float | str:
    """Say a number in JSON: itself where it is finite, else its name."""
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
