"""What a campaign has found: the report as JSON for programs, or as a page for people."""

from __future__ import annotations

import threading
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from service.api.campaigns import find
from service.api.context import context_of
from service.api.routing import CAMPAIGN, Route
from service.campaign.specification import restore
from service.ledger.access import Role

_one_at_a_time = threading.Lock()  # a report of ten thousand trials takes a core for seconds


def read_report(request: Request, campaign_id: str) -> Response:
    """Read the report; with `Accept: text/html` the page of figures, one file that needs no net."""
    from service.campaign.report import make_report  # Optuna

    context, submission = context_of(request), find(request, campaign_id)
    campaign = submission.campaign
    specification = restore(campaign.specification)
    trials, observations = context.ledger.trials(campaign_id), context.ledger.observations(campaign_id)
    with _one_at_a_time:
        report = make_report(specification, campaign, trials, observations, catalog=context.catalog)
        headers = {"ETag": f'"{campaign.sequence}"', "Vary": "Accept"}
        if "text/html" in request.headers.get("Accept", ""):
            from service.findings.page import report_page  # Plotly

            return HTMLResponse(report_page(report, specification, trials), headers=headers)
        return JSONResponse(report.document(), headers=headers)


_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/html": {"schema": {"type": "string"}},
        }
    }
}
ROUTES = (Route("GET", CAMPAIGN + "/report", read_report, Role.VIEWER, None, extra=_CONTENT),)
