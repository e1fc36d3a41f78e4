"""Turns templates into answers: what every page has, how values read, and what a browser may load for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from spectune.service.api.access import KEY_COOKIE, token_of
from spectune.service.campaign.model.numbers import from_json, interval_text, number_text
from spectune.service.campaign.model.progress import duration_text

# Plotly writes styles into its elements, and compiles the program that draws parallel coordinates.
_POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-eval'; connect-src 'self'; "
    "img-src 'self' data: blob:; font-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_NONE = "–"


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Answer with a page, or a part of one."""
    token, is_known = token_of(request), KEY_COOKIE in request.cookies
    content = _templates().get_template(template).render(token=token, has_cookie=is_known, status=status, **values)
    return HTMLResponse(content, status_code=status, headers=HEADERS)


def number(value: Any) -> str:
    """Write a number as a table shows it; also the API's words for what JSON has no number for."""
    if value is None:
        return _NONE
    return number_text(value) if isinstance(value, float) else str(value)


def interval(point: Any) -> str:
    """Write a point's value with half the width of its 95 % interval; a dash for none."""
    if point is None:
        return _NONE
    half_width = None if point.half_width is None else from_json(point.half_width)
    return interval_text(from_json(point.value), half_width)


def settings(config: Mapping[str, Any]) -> str:
    """Write hyperparameters in a line."""
    return "  ".join(f"{name}={number(value)}" for name, value in sorted(config.items()))


def moment(milliseconds: int) -> str:
    """Write a time; the page's script turns it into the reader's own."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration(seconds: float | None) -> str:
    """Write a span of time in its two largest units."""
    return _NONE if seconds is None else duration_text(seconds)


def _document(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=False)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("spectune.service.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"number": number, "interval": interval, "settings": settings, "moment": moment, "duration": duration}
    made.filters |= filters | {"document": _document}
    return made
