"""Turns templates into answers: what every page has, how values read, and what a browser may load for it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from service.api.access import KEY_COOKIE, token_of

# Plotly writes styles into its elements, and compiles the program that draws parallel coordinates.
_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-eval'; "
    "img-src 'self' data: blob:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
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
    content = _templates.get_template(template).render(token=token, has_cookie=is_known, status=status, **values)
    return HTMLResponse(content, status_code=status, headers=HEADERS)


def number(value: Any) -> str:
    """Write a number as a table shows it; also the API's words for what JSON has no number for."""
    if value is None:
        return _NONE
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def settings(config: Mapping[str, Any]) -> str:
    """Write hyperparameters in a line."""
    return "  ".join(f"{name}={number(value)}" for name, value in sorted(config.items()))


def moment(milliseconds: int) -> str:
    """Write a time; the page's script turns it into the reader's own."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration(seconds: float | None) -> str:
    """Write a span of time in its two largest units."""
    if seconds is None:
        return _NONE
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _document(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=False)


_templates = Environment(
    loader=PackageLoader("service.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "number": number,
    "settings": settings,
    "moment": moment,
    "duration": duration,
    "document": _document,
}
