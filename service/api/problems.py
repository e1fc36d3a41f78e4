"""Errors as RFC 9457 problems: the one place that maps our tree, the framework's and the unexpected to HTTP.

`type` is stable; `errors` point into the request by JSON pointers and never repeat what was sent.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from spectune.search_spaces.json_values import json_pointer
from spectune.service.api.examples import PROBLEM
from spectune.service.errors import (
    AccessError,
    BodyError,
    CampaignNotFoundError,
    IdempotencyError,
    IllegalTransitionError,
    LedgerError,
    NothingFailedError,
    ServiceError,
    SpecificationError,
    StaleVersionError,
    TrialNotFoundError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5
_KINDS: dict[type[ServiceError], tuple[int, str]] = {
    SpecificationError: (422, "specification"),
    CampaignNotFoundError: (404, "not-found"),
    TrialNotFoundError: (404, "not-found"),
    IllegalTransitionError: (409, "illegal-transition"),
    NothingFailedError: (409, "nothing-failed"),
    IdempotencyError: (422, "idempotency-key"),
    StaleVersionError: (412, "stale-version"),
    LedgerError: (503, "unavailable"),
}

_log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="JSON pointer into the body, or the name of a parameter", examples=["/arms/0/lr"])
    detail: str


class ProblemDocument(BaseModel):
    """Why a request was refused (RFC 9457)."""

    model_config = ConfigDict(json_schema_extra={"examples": [PROBLEM]})

    type: str = Field(examples=["urn:spectune:problem:specification"])
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


def problem_response(
    status: int, kind: str, detail: str, *, errors: Sequence[FieldError] = (), headers: dict[str, str] | None = None
) -> JSONResponse:
    """Make the answer to a request that is refused."""
    problem = ProblemDocument(
        type=f"urn:spectune:problem:{kind}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        errors=list(errors),
    )
    return JSONResponse(problem.model_dump(), status_code=status, media_type=MEDIA_TYPE, headers=headers)


def add_handlers(application: FastAPI) -> None:
    """Let every error of an application become a problem."""
    application.add_exception_handler(ServiceError, _service_error)
    application.add_exception_handler(RequestValidationError, _validation_error)
    application.add_exception_handler(HTTPException, _http_error)
    application.add_exception_handler(Exception, _unexpected)


def _service_error(request: Request, error: Exception) -> JSONResponse:
    match error:
        case SpecificationError():
            errors = [FieldError(pointer=each.pointer, detail=each.message) for each in error.problems]
            return problem_response(422, "specification", "the campaign cannot be run as it is", errors=errors)
        case AccessError():
            headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
            return problem_response(error.status, "access", str(error), headers=headers)
        case BodyError():
            # What was not read of the body would be taken in otherwise, however much it is.
            headers = {"Connection": "close"} if error.status in (408, 413) else None
            return problem_response(error.status, error.kind, str(error), headers=headers)
    status, kind = next((found for each, found in _KINDS.items() if isinstance(error, each)), (500, "internal"))
    if status == 503:
        _log.warning("the ledger does not answer: %s", error)
        detail = "the ledger does not answer; nothing that was accepted is lost"
        return problem_response(503, kind, detail, headers={"Retry-After": str(RETRY_SECONDS)})
    if status == 500:
        return _unexpected(request, error)
    return problem_response(status, kind, str(error))


def _validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError), f"registered for nothing else: got {type(error)}"
    errors = [FieldError(pointer=_place(mistake["loc"]), detail=mistake["msg"]) for mistake in error.errors()]
    return problem_response(422, "parameters", "a parameter cannot be used", errors=errors)


def _place(location: Sequence[Any]) -> str:
    """Turn a location of the framework's, as ("query", "limit"), into a parameter's name or a pointer."""
    where, *rest = location
    return json_pointer(*rest) if where == "body" else ".".join(map(str, rest))


def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException), f"registered for nothing else: got {type(error)}"
    kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "http")
    headers = dict(error.headers) if error.headers else None
    return problem_response(error.status_code, kind, str(error.detail), headers=headers)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem_response(500, "internal", "an error of the service's own; its log says more")
