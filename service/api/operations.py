"""What operators ask: is it alive, can it work, how is it doing."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from spectune.service.api.context import context_of
from spectune.service.api.problems import RETRY_SECONDS, problem_response
from spectune.service.api.routing import Route
from spectune.service.api.schemas import Health
from spectune.service.errors import LedgerError
from spectune.service.ledger.access import Role


def healthz() -> Health:
    """Tell that the process is alive; asks nothing of anybody else."""
    return Health(status="ok")


def readyz(request: Request) -> JSONResponse:
    """Return whether the service can work; what it can do without for a while is named as degraded."""
    context = context_of(request)
    try:
        context.ledger.clock()
    except LedgerError:
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return problem_response(503, "unavailable", "the ledger does not answer", headers=headers)
    degraded = {name: problem for name, probe in context.probes.items() if (problem := probe()) is not None}
    return JSONResponse(Health(status="degraded" if degraded else "ok", degraded=degraded).model_dump())


def metrics(request: Request) -> PlainTextResponse:
    """Return metrics in Prometheus's text format."""
    content = generate_latest(request.app.state.registry)
    return PlainTextResponse(content, headers={"Content-Type": CONTENT_TYPE_LATEST})


_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
ROUTES = (
    Route("GET", "/healthz", healthz, None, Health),
    Route("GET", "/readyz", readyz, None, Health, refusals=(503,)),
    Route("GET", "/metrics", metrics, Role.VIEWER, None, extra=_TEXT),
)
