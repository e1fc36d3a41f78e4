"""A small catalog in place of the installed one: reading a specification needs no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from spectune.service.campaign.specification.catalog import Catalog, RefusedOptionError, TaskDescription


@dataclass(frozen=True)
class FakeHyperparameter:
    """A number between two bounds, or anything where there are none."""

    default: Any = None
    low: float = float("-inf")
    high: float = float("inf")

    def problem_with(self, value: Any) -> str | None:
        """Refuse numbers outside the bounds."""
        if isinstance(value, int | float) and not self.low <= value <= self.high:
            return f"must lie in [{self.low}, {self.high}]"
        return None


_COMMON = {
    "lr": FakeHyperparameter(1e-3, low=0),
    "weight_decay": FakeHyperparameter(0.1, low=0),
    "momentum": FakeHyperparameter(0.95, 0, 1),
    "ns_steps": FakeHyperparameter(5, 1, 20),
    "adamw_lr": FakeHyperparameter(low=0),
    "adamw_lr_ratio": FakeHyperparameter(low=0),
    "compute_dtype": FakeHyperparameter(),
    "decay_vectors": FakeHyperparameter(False),
}
_OPTIMIZERS = {
    "muon": _COMMON | {"adjust_lr_fn": FakeHyperparameter("original")},
    "root": _COMMON | {"percentile": FakeHyperparameter(0.9, 0, 1)},
    "adamw": {key: _COMMON[key] for key in ("lr", "weight_decay")} | {"betas": FakeHyperparameter((0.9, 0.95))},
}


def _describe_task(name: str, options: Mapping[str, Any]) -> TaskDescription:
    defaults = {"width": 64, "corpus": "built-in"}
    for option, value in options.items():
        if option not in defaults:
            near = difflib.get_close_matches(option, defaults, n=1)
            raise RefusedOptionError(option, f"unknown option (did you mean {near[0]!r}?)", value)
    merged = {**defaults, **options}
    if merged["corpus"] == "/nowhere":
        raise RefusedOptionError("corpus", "no such folder", merged["corpus"])
    return TaskDescription(merged, ("loss", "validation_loss"))


def _check_schedule(options: Mapping[str, Any]) -> None:
    if options["shape"] not in ("constant", "wsd"):
        raise RefusedOptionError("shape", "unknown shape", options["shape"])


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(
        optimizers=_OPTIMIZERS, tasks=("language_model",), describe_task=_describe_task, check_schedule=_check_schedule
    )


@pytest.fixture
def document() -> dict[str, Any]:
    """Return a specification that uses most of what there is."""
    return {
        "name": "Root percentile",
        "task": {"name": "language_model", "width": 32, "steps": 400},
        "objective": {"metric": "validation_loss", "mode": "minimize"},
        "arms": [
            {
                "optimizer": "root",
                "space": {
                    "lr": {"log_uniform": [3.0e-4, 1.0e-1]},
                    "ns_steps": {"integer": [1, 8]},
                    "percentile": {"uniform": [0.8, 1.0]},
                },
                "fixed": {"momentum": 0.95},
            },
            {"optimizer": "muon", "space": "default", "fixed": {"momentum": 0.9}},
        ],
        "search": {"sampler": "tpe", "points": 32, "seeds": 2, "search_seed": 7},
        "schedule": {"shape": "wsd", "warmup_fraction": 0.02, "decay_fraction": 0.3},
        "stopping": {"rule": "successive_halving", "min_steps": 134, "reduction_factor": 3},
        "precision": "fp32",
        "initial_points": [{"arm": "root", "config": {"lr": 1.0e-3, "ns_steps": 5, "percentile": 0.9}}],
        "resources": {"workers": 2, "cpus": 1},
        "tags": {"owner": "me"},
    }
