"""What the API document shows: the campaign that tests and benchmarks submit, and answers to it."""

from __future__ import annotations

from typing import Any, Final

SPECIFICATION: Final[dict[str, Any]] = {
    "name": "muon-or-adamw",
    "task": {"name": "matrix_completion", "rows": 30, "columns": 20, "rank": 2, "steps": 60},
    "objective": {"metric": "validation_loss", "mode": "minimize"},
    "arms": [{"optimizer": "muon"}, {"optimizer": "adamw"}],
    "search": {"sampler": "random", "points": 8},
}

CAMPAIGN: Final[dict[str, Any]] = {
    "id": "muon-or-adamw-c069ac189f",
    "name": "muon-or-adamw",
    "state": "RUNNING",
    "reason": "driver_started",
    "message": "",
    "since": 1795845475000,
    "owner": "local",
    "priority": 0,
    "created_at": 1795845468000,
    "attempt": 1,
    "queue_position": None,
    "waiting_for": "",
    "num_set_aside": 0,
    "progress": {
        "num_trials": {"COMPLETED": 9, "RUNNING": 1},
        "num_trials_planned": 16,
        "until_step": 60,
        "eta_seconds": 1.9,
        "text": "1 running, 9 completed of 16",
    },
    "best": {
        "arm": "muon",
        "point": 1,
        "trials": [20, 21, 22, 23],
        "value": 0.0123,
        "half_width": 0.0009,
        "phase": "final",
        "how": "mean of finals ± 95 % interval, 4 seeds",
    },
    "why_no_best": "",
    "links": {"best": "/v1/campaigns/muon-or-adamw-c069ac189f/best"},
    "specification": SPECIFICATION,
}

PROBLEM: Final[dict[str, Any]] = {
    "type": "urn:spectune:problem:specification",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "the campaign cannot be run as it is",
    "errors": [{"pointer": "/arms/0/optimizer", "detail": "no such optimizer; did you mean muon?"}],
}
