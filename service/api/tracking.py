"""Where a campaign and its trials can be looked at in MLflow.

It is a resource of its own, so that reading a campaign never waits for MLflow.
"""

from __future__ import annotations

from fastapi import Request

from spectune.service.api.campaigns import find
from spectune.service.api.context import context_of
from spectune.service.api.routing import CAMPAIGN, Route
from spectune.service.api.schemas import CampaignTracking, TrialTracking
from spectune.service.api.trials import TrialNumber
from spectune.service.errors import TrackingError
from spectune.service.ledger.access import Role
from spectune.service.tracking.links import MLFLOW


def read_campaign_tracking(request: Request, campaign_id: str) -> CampaignTracking:
    """Return where in MLflow a campaign's run, its trials' curves and its best trials side by side are."""
    campaign, context = find(request, campaign_id).campaign, context_of(request)
    if context.pages is None:
        return CampaignTracking(problem="this service keeps no tracker")
    untold = context.ledger.untold(MLFLOW, campaign)
    try:
        pages = context.pages.of_campaign(campaign)
    except TrackingError as error:
        return CampaignTracking(problem=str(error), num_untold=untold)
    return CampaignTracking(run=pages.run, trials=pages.trials, best=pages.best, num_untold=untold)


def read_trial_tracking(request: Request, campaign_id: str, number: TrialNumber) -> TrialTracking:
    """Return where in MLflow a trial's run is."""
    campaign, context = find(request, campaign_id).campaign, context_of(request)
    context.ledger.trial(campaign_id, number)
    if context.pages is None:
        return TrialTracking(problem="this service keeps no tracker")
    try:
        return TrialTracking(run=context.pages.of_trial(campaign, number))
    except TrackingError as error:
        return TrialTracking(problem=str(error))


ROUTES = (
    Route("GET", CAMPAIGN + "/tracking", read_campaign_tracking, Role.VIEWER, CampaignTracking),
    Route("GET", CAMPAIGN + "/trials/{number:int}/tracking", read_trial_tracking, Role.VIEWER, TrialTracking),
)
