"""Logging in: a key, given once, stays in a cookie that no script reads and no other site's page sends."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from spectune.service.api.access import KEY_COOKIE, refuse_other_sites
from spectune.service.api.context import context_of
from spectune.service.api.request_body import read_bytes
from spectune.service.web.rendering import HEADERS, render

_A_MONTH = 30 * 24 * 3600


async def read_form(request: Request) -> dict[str, str]:
    """Read the fields of a form; of one that is there twice, the last.

    Raises:
        BodyError: It is too large or too slow.
    """
    content = (await read_bytes(request)).decode("utf-8", errors="replace")
    return {name: values[-1] for name, values in parse_qs(content, keep_blank_values=True).items()}


def login_page(request: Request, then: str = "/") -> Response:
    """Ask for a key, unless none is needed."""
    if not context_of(request).ledger.has_keys():
        return RedirectResponse("/", status_code=303)
    return render(request, "login.html", then=_own_path(then), problem="")


async def log_in(request: Request) -> Response:
    """Take a key and go on to where the reader wanted to be."""
    refuse_other_sites(request)
    form = await read_form(request)
    key, then = form.get("key", "").strip(), _own_path(form.get("then", "/"))
    if context_of(request).ledger.find_key(key) is None:
        return render(request, "login.html", status=401, then=then, problem="This key is wrong or revoked.")
    answer = RedirectResponse(then, status_code=303, headers=HEADERS)
    answer.set_cookie(KEY_COOKIE, key, max_age=_A_MONTH, **_cookie(request))
    return answer


def log_out(request: Request) -> Response:
    """Forget the key."""
    refuse_other_sites(request)
    answer = RedirectResponse("/login", status_code=303, headers=HEADERS)
    answer.delete_cookie(KEY_COOKIE, **_cookie(request))
    return answer


def _cookie(request: Request) -> dict[str, Any]:
    return {"path": "/", "httponly": True, "samesite": "strict", "secure": request.url.scheme == "https"}


def _own_path(path: str) -> str:
    """Let nobody send a reader elsewhere: only a path of ours is gone on to."""
    is_user_task = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if is_user_task else "/"
