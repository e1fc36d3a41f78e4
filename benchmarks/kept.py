"""Results that are kept: JSON beside the machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """Describe this machine: its processor, Python, and how busy it is."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def keep(path: Path, document: dict[str, Any]) -> None:
    """Write results, and where they were measured."""
    path.write_text(json.dumps({"machine": machine(), **document}, indent=1) + "\n", encoding="utf-8")


def keep_lines(path: Path, lines: Sequence[dict[str, Any]], *, of: Sequence[str]) -> None:
    """Put lines into a file in the place of those of the same cases; the others stay. Each says where it was measured.

    Args:
        path: The file, which need not be there.
        lines: Results, one a case.
        of: The entries that name a case.
    """
    kept = json.loads(path.read_text(encoding="utf-8"))["lines"] if path.exists() else []
    measured = [{**line, "machine": machine()} for line in lines]
    merged = {tuple(line[name] for name in of): line for line in (*kept, *measured)}
    path.write_text(json.dumps({"lines": list(merged.values())}, indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    """Return the processor's name where Linux tells it; Python knows the architecture alone."""
    named = (
        [line for line in _CPUINFO.read_text().splitlines() if line.startswith("model name")]
        if _CPUINFO.exists()
        else []
    )
    return named[0].partition(":")[2].strip() if named else platform.processor() or platform.machine()
