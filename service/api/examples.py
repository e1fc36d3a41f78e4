"""The campaign that the documentation shows, and that tests and benchmarks submit."""

from __future__ import annotations

from typing import Any, Final

SPECIFICATION: Final[dict[str, Any]] = {
    "name": "muon-or-adamw",
    "task": {"name": "matrix_completion", "rows": 30, "columns": 20, "rank": 2, "steps": 60},
    "objective": {"metric": "validation_loss", "mode": "minimize"},
    "arms": [{"optimizer": "muon"}, {"optimizer": "adamw"}],
    "search": {"sampler": "random", "points": 8},
}
