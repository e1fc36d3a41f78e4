"""Presets: settings of papers and sizes of models, by name; options given beside `preset` win.

PolarGrad's experiments are arXiv 2505.21799, sections 6.1 to 6.3, as their authors' code has them; what arXiv
2601.13474 ran is not known to us, so its presets are a reconstruction. Sizes count parameters, embeddings included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_BYTES: Mapping[str, Any] = {"context": 256, "batch_size": 16}

PRESETS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "polargrad-6.1": ("matrix_regression", {"rows": 500, "columns": 100, "samples": 1000, "outputs": 250}),
    "polargrad-6.2": (
        "matrix_logistic",
        {"rows": 1000, "columns": 100, "samples": 10_000, "outputs": 400, "batch_size": 1000},
    ),
    "polargrad-6.3": ("matrix_completion", {"rows": 500, "columns": 250, "rank": 5, "observed_fraction": 0.3}),
    **{
        f"factorization-kappa-{kappa}": ("matrix_factorization", {"size": 60, "rank": 5, "condition": float(kappa)})
        for kappa in (10, 100, 1000)
    },
    **{
        f"icl-kappa-{kappa}": ("linear_attention", {"size": 20, "examples": 100, "condition": float(kappa)})
        for kappa in (10, 100, 1000)
    },
    "bytes-0.2m": ("language_model", {**_BYTES, "width": 64, "depth": 3, "heads": 4}),
    "bytes-1m": ("language_model", {**_BYTES, "width": 128, "depth": 4, "heads": 4}),
    "bytes-5m": ("language_model", {**_BYTES, "width": 256, "depth": 6, "heads": 4}),
    "bytes-26m": ("language_model", {**_BYTES, "width": 512, "depth": 8, "heads": 8, "context": 512}),
    "gpt2-small": (
        "language_model",
        {
            "width": 768,
            "depth": 12,
            "heads": 12,
            "context": 1024,
            "batch_size": 16,
            "feed_forward": "gelu",
            "tied_embeddings": True,
            "vocabulary": 50_304,  # GPT-2's 50 257, padded to a multiple of 128
        },
    ),
    "qwen2.5-0.5b": (
        "language_model",
        {
            "width": 1024,
            "depth": 12,
            "heads": 16,
            "context": 512,
            "batch_size": 16,
            "feed_forward_width": 4864,
            "rope_base": 1e6,
            "vocabulary": 151_936,
        },
    ),
}


def presets_of(task: str) -> dict[str, Mapping[str, Any]]:
    """Return a task's presets by name."""
    return {name: options for name, (owner, options) in PRESETS.items() if owner == task}
