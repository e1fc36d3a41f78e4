"""Every task, small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spectune.trainers.tasks import Task, task_from_options

SMALL: dict[str, dict[str, Any]] = {
    "matrix_regression": {"rows": 12, "columns": 5, "samples": 30, "outputs": 9},
    "matrix_logistic": {"rows": 12, "columns": 5, "samples": 60, "outputs": 9, "batch_size": 16},
    "matrix_completion": {"rows": 30, "columns": 20, "rank": 2, "observed_fraction": 0.7},
    "matrix_factorization": {"size": 12, "rank": 3, "condition": 10.0, "start_scale": 0.1},
    "linear_attention": {"size": 6, "examples": 8, "condition": 10.0},
    "linear_attention sampled": {"size": 6, "examples": 8, "prompts": "sampled", "batch_size": 32},
    "language_model": {"width": 16, "depth": 1, "heads": 2, "context": 16, "batch_size": 4, "validation_batches": 2},
    "language_model gelu tied": {
        "width": 16,
        "depth": 2,
        "heads": 2,
        "context": 16,
        "batch_size": 4,
        "feed_forward": "gelu",
        "tied_embeddings": True,
    },
    "vision_transformer": {"width": 16, "depth": 1, "heads": 2, "batch_size": 16},
    "vision_transformer augmented": {"width": 16, "depth": 1, "heads": 2, "batch_size": 16, "augment": True},
}


@pytest.fixture(params=sorted(SMALL))
def small_task(request: pytest.FixtureRequest, corpus: Path) -> Task:
    name = request.param.split()[0]
    options = SMALL[request.param] | ({"corpus": str(corpus)} if name == "language_model" else {})
    return task_from_options(name, options)
