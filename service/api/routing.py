"""A route as a value, so that one table says what there is and who may call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Depends, params
from pydantic import BaseModel

from spectune.service.api.access import Gate
from spectune.service.api.parameters import KnownParameters
from spectune.service.api.problems import MEDIA_TYPE
from spectune.service.ledger.access import Role

CAMPAIGN = "/v1/campaigns/{campaign_id:identifier}"
_REFUSALS = {
    400: "the request cannot be read",
    401: "no key, or a wrong one",
    403: "the key's role does not suffice",
    404: "there is no such thing, or it is another owner's",
    405: "the resource has no such verb",
    408: "the body did not arrive in time",
    409: "the state does not allow it",
    412: "it was changed meanwhile",
    413: "the body is too large",
    415: "the body is no JSON",
    422: "what was sent cannot be used; `errors` says where",
    428: "a header is missing",
    503: "the ledger does not answer; `Retry-After` says when to ask again",
}


@dataclass(frozen=True)
class Route:
    """One verb of one resource.

    Attributes:
        role: The least role that may call it; None for everybody.
        example: A body, where it takes one.
        refusals: Statuses with a problem that it may answer beside those of its role.
    """

    method: str
    path: str
    endpoint: Callable[..., Any]
    role: Role | None
    answer: type[BaseModel] | None = None
    status: int = 200
    example: dict[str, Any] | None = None
    refusals: tuple[int, ...] = ()
    extra: dict[int | str, dict[str, Any]] = field(default_factory=dict)

    def add_to(self, router: APIRouter) -> None:
        """Register it."""
        router.add_api_route(
            self.path,
            self.endpoint,
            methods=[self.method],
            status_code=self.status,
            response_model=self.answer,
            dependencies=self._checks(),
            responses=self._responses(),
            openapi_extra=self._body(),
            tags=[self.path.split("/")[2].partition(":")[0] if self.path.startswith("/v1/") else "operations"],
        )

    def _checks(self) -> list[params.Depends]:
        """Who may call it, and with which parameters; what asks an operator's own routes may add what it likes."""
        gate = [] if self.role is None else [Depends(Gate(self.role))]
        return [*gate, Depends(KnownParameters(self.endpoint))] if self.path.startswith("/v1/") else gate

    def _responses(self) -> dict[int | str, dict[str, Any]]:
        statuses = {405, 422, *self.refusals}
        statuses |= {401, 403, 503} if self.role is not None else set()
        statuses |= {404} if "{" in self.path else set()
        statuses |= {400, 408, 413, 415} if self.example is not None else set()
        schema = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        refusals: dict[int | str, dict[str, Any]] = {
            status: {"description": _REFUSALS[status], "content": schema} for status in sorted(statuses)
        }
        return refusals | dict(self.extra)

    def _body(self) -> dict[str, Any] | None:
        if self.example is None:
            return None
        content = {"schema": {"type": "object"}, "example": self.example}
        return {"requestBody": {"required": True, "content": {"application/json": content}}}
