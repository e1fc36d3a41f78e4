"""Makes the application: routes from their tables, problems for errors, its OpenAPI document; nothing at import."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from prometheus_client import CollectorRegistry
from starlette.convertors import Convertor, register_url_convertor

from spectune.service.api import campaigns, events, operations, preview, report, tracking, trials
from spectune.service.api import catalog as catalogue
from spectune.service.api.context import Context
from spectune.service.api.metrics import LedgerCollector, RequestTimes
from spectune.service.api.problems import ProblemDocument, add_handlers

ROUTES = (
    *campaigns.ROUTES,
    *preview.ROUTES,
    *trials.ROUTES,
    *report.ROUTES,
    *tracking.ROUTES,
    *events.ROUTES,
    *catalogue.ROUTES,
    *operations.ROUTES,
)


class _Identifier(Convertor[str]):
    """The id of a campaign: without a colon, which begins a verb."""

    regex = "[a-z0-9][a-z0-9-]{0,119}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


def create_application(context: Context) -> FastAPI:
    """Make the application.

    Args:
        context: The world it lives in.
    """
    register_url_convertor("identifier", _Identifier())
    application = FastAPI(
        title="Spectune",
        version="1",
        summary="Hyperparameter search for matrix-gradient optimizers.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    registry = CollectorRegistry()
    registry.register(LedgerCollector(context.ledger))
    application.state.context = context
    application.state.feed = events.Feed(context.ledger)
    application.state.registry = registry
    router = APIRouter()
    for route in ROUTES:
        route.add_to(router)
    application.include_router(router)
    add_handlers(application)
    application.add_middleware(RequestTimes, registry=registry)
    application.openapi = lambda: openapi_document(application)  # type: ignore[method-assign]
    return application


def openapi_document(application: FastAPI) -> dict[str, Any]:
    """Describe an application in OpenAPI 3.1."""
    if application.openapi_schema is None:
        document = get_openapi(
            title=application.title,
            version=application.version,
            summary=application.summary,
            routes=application.routes,
        )
        schemas = document["components"]["schemas"]
        problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= problem.pop("$defs")
        schemas["Problem"] = problem
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}, {}]
        _add_links(document["paths"])
        application.openapi_schema = document
    return application.openapi_schema


def _add_links(paths: dict[str, Any]) -> None:
    """Say in the document which answers hold what other operations ask for: ids of campaigns, numbers of trials."""
    campaign, trial = _operations(paths, "{campaign_id}"), _operations(paths, "{number}")
    made = {name: {"campaign_id": "$response.body#/id"} for name in campaign if name not in trial}
    paths["/v1/campaigns"]["post"]["responses"]["201"]["links"] = _links(made)
    listed = {"campaign_id": "$request.path.campaign_id", "number": "$response.body#/trials/0/number"}
    page = paths["/v1/campaigns/{campaign_id}/trials"]["get"]["responses"]["200"]
    page["links"] = _links(dict.fromkeys(trial, listed))


def _operations(paths: dict[str, Any], parameter: str) -> list[str]:
    return [verb["operationId"] for path, verbs in paths.items() if parameter in path for verb in verbs.values()]


def _links(parameters: dict[str, dict[str, str]]) -> dict[str, Any]:
    return {name: {"operationId": name, "parameters": each} for name, each in parameters.items()}
