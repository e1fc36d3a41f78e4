"""Reading what comes over the network: a campaign names no module and no folder that the settings do not allow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spectune.search_spaces.json_values import json_pointer
from spectune.search_spaces.space import nearest_hint
from spectune.service.api.context import Context
from spectune.service.api.request_body import JsonBody
from spectune.service.campaign.specification.catalog import Catalog
from spectune.service.campaign.specification.specification import Specification, parse
from spectune.service.errors import Problem, SpecificationError
from spectune.service.settings import OUR_PACKAGE, Settings

HIGHEST_PRIORITY = 1000


def read_submission(context: Context, body: JsonBody) -> tuple[int, Specification]:
    """Read a campaign that is to be submitted, with the priority beside its specification.

    Raises:
        SpecificationError: It cannot be run.
    """
    document = dict(body.document)
    priority = integer_field(document, "priority", -HIGHEST_PRIORITY, HIGHEST_PRIORITY) or 0
    document.pop("priority", None)
    return priority, parse_request(document, catalog=context.catalog, settings=context.settings)


def integer_field(document: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    """Read a whole number of a body; None where it is not there.

    Raises:
        SpecificationError: It is no whole number in these bounds.
    """
    value = document.get(name)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise SpecificationError([Problem(json_pointer(name), f"a whole number in [{low}, {high}] is needed")])
    return value


def refuse_unknown(document: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Make sure that a body holds nothing else.

    Raises:
        SpecificationError: It does.
    """
    unknown = [
        Problem(json_pointer(name), f"unknown key{nearest_hint(name, known)}; known: {', '.join(known)}")
        for name in document
        if name not in known
    ]
    if unknown:
        raise SpecificationError(unknown)


def parse_request(document: Mapping[str, Any], *, catalog: Catalog, settings: Settings) -> Specification:
    """Read a specification that came over the network.

    Raises:
        SpecificationError: It cannot be run, or names what is not allowed; nothing was imported or opened then.
    """
    task = document.get("task")
    if isinstance(task, Mapping):
        problems = [*_module_problems(task.get("name"), settings), *_corpus_problems(task.get("corpus"), settings)]
        if problems:
            raise SpecificationError(problems)
    return parse(document, catalog=catalog)


def _module_problems(name: Any, settings: Settings) -> list[Problem]:
    """Check a task of the form `module:Class`."""
    if not isinstance(name, str) or ":" not in name:
        return []
    module = name.partition(":")[0]
    if module.split(".")[0] == OUR_PACKAGE:
        return [Problem("/task/name", "this package is the service's own")]
    if module not in settings.task_modules:
        return [Problem("/task/name", "this module is not on the service's list of task modules")]
    return []


def _corpus_problems(corpus: Any, settings: Settings) -> list[Problem]:
    if not isinstance(corpus, str):
        return []
    folder = Path(corpus)
    allowed = folder.is_absolute() and any(folder.resolve().is_relative_to(root) for root in settings.corpora)
    return [] if allowed else [Problem("/task/corpus", "this folder is not below one of the service's corpora")]
