"""Parameters of an address that nobody asked for are refused: a mistyped filter would list everything."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from fastapi import Request, params
from fastapi.exceptions import RequestValidationError

from spectune.search_spaces.space import nearest_hint


class KnownParameters:
    """A check that a request has no query parameter but those of its endpoint.

    Args:
        endpoint: The function that answers.
    """

    def __init__(self, endpoint: Callable[..., Any]) -> None:
        self._names = query_names(endpoint)

    def __call__(self, request: Request) -> None:
        """Refuse a request with other parameters, naming the nearest that there is.

        Raises:
            RequestValidationError: It has some.
        """
        unknown = [name for name in dict.fromkeys(request.query_params) if name not in self._names]
        if unknown:
            raise RequestValidationError([self._mistake(name) for name in unknown])

    def _mistake(self, name: str) -> dict[str, Any]:
        known = f"; known: {', '.join(self._names)}" if self._names else "; none is known here"
        return {"loc": ("query", name), "msg": f"unknown parameter{nearest_hint(name, self._names) or known}"}


def query_names(endpoint: Callable[..., Any]) -> tuple[str, ...]:
    """Name the query parameters of an endpoint: those with a default that are no header and no dependency."""
    hints = typing.get_type_hints(endpoint, include_extras=True)
    return tuple(
        name
        for name, parameter in inspect.signature(endpoint).parameters.items()
        if parameter.default is not inspect.Parameter.empty and not _is_elsewhere(hints[name])
    )


def _is_elsewhere(hint: Any) -> bool:
    """Return whether a parameter is read from somewhere else than the query."""
    return any(
        isinstance(each, params.Header | params.Path | params.Cookie | params.Body | params.Depends)
        for part in (hint, *typing.get_args(hint))
        for each in getattr(part, "__metadata__", ())
    )
