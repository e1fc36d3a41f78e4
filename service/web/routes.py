"""Where the pages are, who may open them, and how an error reads there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from spectune.service.api.access import Gate
from spectune.service.errors import (
    AccessError,
    BodyError,
    CampaignNotFoundError,
    LedgerError,
    ServiceError,
    SpecificationError,
    TrialNotFoundError,
)
from spectune.service.findings.plotly_script import plotly_script
from spectune.service.ledger.access import Role
from spectune.service.web import pages, sessions, submission
from spectune.service.web.rendering import render

_CAMPAIGN = "/campaigns/{campaign_id:identifier}"
_TRIAL = _CAMPAIGN + "/trials/{number:int}"
_KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_A_DAY = "public, max-age=86400"


class _Page(APIRoute):
    """A route whose errors are pages, and which asks for a key where one is missing."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                response: Response = await answer(request)
            except ServiceError as error:
                return _refusal(request, error)
            return response

        return handle


def _refusal(request: Request, error: ServiceError) -> Response:
    match error:
        case AccessError(status=401):
            where = f"/login?then={quote(request.url.path)}"
            if "hx-request" in request.headers:
                return Response(status_code=204, headers={"HX-Redirect": where})
            return RedirectResponse(where, status_code=303)
        case AccessError() | BodyError():
            status, message = error.status, str(error)
        case CampaignNotFoundError() | TrialNotFoundError():
            status, message = 404, str(error)
        case SpecificationError():
            status, message = 422, "; ".join(f"{each.pointer}: {each.message}" for each in error.problems)
        case LedgerError():
            status, message = 503, "the ledger does not answer; nothing that was accepted is lost"
        case _:
            raise error
    return render(request, "refusal.html", status=status, message=message)


@cache
def _asset(name: str) -> bytes:
    return files("spectune.service.web").joinpath("static", name).read_bytes()


@cache
def _plotly() -> bytes:
    return plotly_script().encode()


def asset(name: str) -> Response:
    """Return a file that pages load."""
    content = _plotly() if name == "plotly.min.js" else _asset(name)
    return Response(content, media_type=_KINDS[name.rpartition(".")[2]], headers={"Cache-Control": _A_DAY})


@dataclass(frozen=True)
class PageRoute:
    """A page, or a part of one.

    Attributes:
        role: The least role that may open it; None for everybody.
    """

    method: str
    path: str
    endpoint: Callable[..., Any]
    role: Role | None


ROUTES = (
    PageRoute("GET", "/", pages.campaigns_page, Role.VIEWER),
    PageRoute("GET", _CAMPAIGN, pages.campaign_page, Role.VIEWER),
    PageRoute("GET", _CAMPAIGN + "/standing", pages.standing_part, Role.VIEWER),
    PageRoute("GET", _CAMPAIGN + "/figures", pages.figures_part, Role.VIEWER),
    PageRoute("GET", _CAMPAIGN + "/findings", pages.findings_part, Role.VIEWER),
    PageRoute("GET", _CAMPAIGN + "/trials", pages.trials_part, Role.VIEWER),
    PageRoute("GET", _CAMPAIGN + "/tracking", pages.tracking_part, Role.VIEWER),
    PageRoute("GET", _CAMPAIGN + "/log", pages.log_part, Role.VIEWER),
    PageRoute("GET", _TRIAL, pages.trial_page, Role.VIEWER),
    PageRoute("GET", _TRIAL + "/tracking", pages.trial_tracking_part, Role.VIEWER),
    PageRoute("GET", "/submit", submission.submission_page, Role.SUBMITTER),
    PageRoute("POST", "/submit", submission.submit_file, Role.SUBMITTER),
    PageRoute("POST", "/submit/preview", submission.preview_file, Role.SUBMITTER),
    PageRoute("GET", "/login", sessions.login_page, None),
    PageRoute("POST", "/login", sessions.log_in, None),
    PageRoute("POST", "/logout", sessions.log_out, None),
)
ASSETS = ("htmx.min.js", "plotly.min.js", "pages.js", "pages.css", "mark.svg")


def add_pages(application: FastAPI) -> None:
    """Add the pages to an application of the API."""
    router = APIRouter(route_class=_Page)
    for route in ROUTES:
        router.add_api_route(
            route.path,
            route.endpoint,
            methods=[route.method],
            dependencies=[] if route.role is None else [Depends(Gate(route.role))],
            include_in_schema=False,
            response_model=None,
        )
    for name in ASSETS:
        router.add_api_route(
            f"/static/{name}", _giving(name), methods=["GET"], include_in_schema=False, response_model=None
        )
    application.include_router(router)


def _giving(name: str) -> Callable[[], Response]:
    return lambda: asset(name)
