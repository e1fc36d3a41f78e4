"""What a specification can name: optimizers, tasks and search spaces, with a JSON Schema of every option."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Query
from pydantic import AfterValidator

from spectune.optimizers.catalog import OPTIMIZERS
from spectune.optimizers.hyperparameters import Hyperparameter
from spectune.search_spaces import DEFAULT_SPACES, default_space
from spectune.service.api.routing import Route
from spectune.service.api.schemas import Catalogue
from spectune.service.ledger.access import Role
from spectune.trainers.options import unknown
from spectune.trainers.tasks import PRESETS, TASKS, task_schema

_TYPES = {"float": "number", "integer": "integer", "boolean": "boolean", "choice": "string", "betas": "array"}


def list_optimizers() -> Catalogue:
    """List the optimizers with their hyperparameters."""
    items = {
        name: _object({each: _hyperparameter(what) for each, what in entry.hyperparameters.items()})
        for name, entry in OPTIMIZERS.items()
    }
    return Catalogue(items=items)


def list_tasks() -> Catalogue:
    """List the tasks with their options and presets."""
    return Catalogue(items={name: task_schema(name) for name in TASKS})


def _known(preset: str) -> str:
    if preset and preset not in PRESETS:
        raise ValueError(unknown("preset", preset, PRESETS))
    return preset


def list_search_spaces(
    preset: Annotated[str, Query(description="For this preset of a task."), AfterValidator(_known)] = "",
) -> Catalogue:
    """List the space that ships with each optimizer, as a specification would write it."""
    return Catalogue(items={name: default_space(name, preset).document() for name in DEFAULT_SPACES})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _hyperparameter(what: Hyperparameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": _TYPES[what.kind], "description": what.sentence}
    if what.default is not None:
        schema["default"] = _plain(what.default)
    if what.kind == "betas":
        return schema | {"items": {"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "minItems": 2, "maxItems": 2}
    if what.choices:
        schema["enum"] = list(what.choices)
    if what.low is not None:
        schema["exclusiveMinimum" if what.low_open else "minimum"] = what.low
    if what.high is not None:
        schema["exclusiveMaximum" if what.high_open else "maximum"] = what.high
    return schema


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


ROUTES = (
    Route("GET", "/v1/optimizers", list_optimizers, Role.VIEWER, Catalogue),
    Route("GET", "/v1/tasks", list_tasks, Role.VIEWER, Catalogue),
    Route("GET", "/v1/search-spaces", list_search_spaces, Role.VIEWER, Catalogue),
)
