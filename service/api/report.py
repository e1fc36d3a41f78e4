"""What a campaign has found: the report as JSON for programs or as a page for people, and all of it as one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from spectune.service.api.campaigns import find
from spectune.service.api.context import context_of
from spectune.service.api.routing import CAMPAIGN, Route
from spectune.service.campaign.model.records import TrialRecord
from spectune.service.campaign.specification.specification import Specification, restore
from spectune.service.ledger.access import Role

if TYPE_CHECKING:
    from spectune.service.campaign.analysis.report import Report


def make_campaign_report(request: Request, campaign_id: str) -> tuple[Report, Specification, list[TrialRecord]]:
    """Make a campaign's report, with what it is of: what was asked for, and all trials.

    Raises:
        CampaignNotFoundError: There is no such campaign for the caller.
    """
    from spectune.service.campaign.analysis.report import make_report  # Optuna

    context, campaign = context_of(request), find(request, campaign_id).campaign
    specification = restore(campaign.specification)
    trials, observations = context.ledger.trials(campaign_id), context.ledger.observations(campaign_id)
    with context.reporting:
        report = make_report(specification, campaign, trials, observations, catalog=context.catalog)
    return report, specification, trials


def read_report(request: Request, campaign_id: str) -> Response:
    """Read the report; with `Accept: text/html` the page of figures, one file that needs no net."""
    headers = {"ETag": f'"{find(request, campaign_id).campaign.sequence}"', "Vary": "Accept"}
    report, specification, trials = make_campaign_report(request, campaign_id)
    if "text/html" in request.headers.get("Accept", ""):
        from spectune.service.findings.page import report_page  # Plotly

        headers |= {"Content-Security-Policy": "frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(report_page(report, specification, trials), headers=headers)
    return JSONResponse(report.document(), headers=headers)


def read_bundle(request: Request, campaign_id: str) -> Response:
    """Read the campaign as one zip file: specification, environment, seeds, curves and report, with checksums."""
    from spectune.service.findings.bundle import write_bundle
    from spectune.service.findings.documents import campaign_documents  # torch, Optuna and Plotly

    context, submission = context_of(request), find(request, campaign_id)
    campaign = submission.campaign
    trials, observations = context.ledger.trials(campaign_id), context.ledger.observations(campaign_id)
    with context.reporting:
        documents = campaign_documents(campaign, trials, observations, catalog=context.catalog)
        content = write_bundle(documents, restore(campaign.specification), trials, observations)
    headers = {"ETag": f'"{campaign.sequence}"', "Content-Disposition": f'attachment; filename="{campaign_id}.zip"'}
    return Response(content, media_type="application/zip", headers=headers)


_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/html": {"schema": {"type": "string"}},
        }
    }
}
_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/zip": {"schema": {"type": "string", "contentMediaType": "application/zip"}}}}
}
ROUTES = (
    Route("GET", CAMPAIGN + "/report", read_report, Role.VIEWER, None, extra=_CONTENT),
    Route("GET", CAMPAIGN + "/bundle", read_bundle, Role.VIEWER, None, extra=_ZIP),
)
