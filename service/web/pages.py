"""What the pages show: campaigns, one campaign and its parts, one trial."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Query, Request, Response
from markupsafe import Markup

from spectune.service.api import tracking
from spectune.service.api.campaigns import find, list_campaigns
from spectune.service.api.context import caller_of, context_of
from spectune.service.api.report import make_campaign_report
from spectune.service.api.serializers import campaign_document
from spectune.service.api.trials import TrialNumber, list_trials, read_leaderboard, read_log, read_trial
from spectune.service.campaign.analysis.comparability import lacking_sentence
from spectune.service.campaign.model.lifecycle import (
    CAMPAIGN_TRANSITIONS,
    CampaignEvent,
    CampaignState,
    TrialState,
    has_failures,
)
from spectune.service.campaign.model.progress import untold_text
from spectune.service.campaign.model.records import TrialRecord
from spectune.service.campaign.specification.specification import restore
from spectune.service.ledger.access import Role
from spectune.service.ledger.pages import TrialOrder
from spectune.service.tracking.links import MLFLOW
from spectune.service.web.rendering import render

if TYPE_CHECKING:
    import plotly.graph_objects as go

_VERBS = {
    CampaignEvent.PAUSE: "pause",
    CampaignEvent.RESUME: "resume",
    CampaignEvent.RETRY: "retry-failed",
    CampaignEvent.CANCEL: "cancel",
}
_SETTLING = (CampaignState.PAUSING, CampaignState.CANCELLING)
_NUM_CURVES = 10  # of an arm
_PAGE = 50

Cursor = Annotated[str | None, Query(max_length=1000)]


def campaigns_page(request: Request, state: CampaignState | None = None, cursor: Cursor = None) -> Response:
    """List campaigns, the newest first."""
    found = list_campaigns(request, state=[] if state is None else [state], limit=_PAGE, cursor=cursor)
    return render(request, "campaigns.html", page=found, state=state, states=list(CampaignState))


def campaign_page(request: Request, campaign_id: str) -> Response:
    """Show a campaign; its parts are asked for by the page itself."""
    submission = find(request, campaign_id)
    campaign = submission.campaign
    return render(request, "campaign.html", campaign=campaign, owner=submission.owner, sequence=campaign.sequence)


def standing_part(request: Request, campaign_id: str) -> Response:
    """Show how a campaign stands: its state, what may be done, its progress and its arms."""
    context, submission = context_of(request), find(request, campaign_id)
    campaign = submission.campaign
    summary = context.summaries.of(context.ledger, [submission], standings=context.standings)[campaign_id]
    aside = context.ledger.num_set_aside([campaign_id])
    board = read_leaderboard(request, Response(), campaign_id, limit=1)
    return render(
        request,
        "standing.html",
        campaign=campaign_document(submission, summary, num_set_aside=aside.get(campaign_id, 0)),
        verbs=_verbs(request, campaign.state, [each.state for each in summary.tallies]),
        lacking=lacking_sentence(campaign, summary.tallies),
        board=board,
        untold=untold_text(0 if context.pages is None else context.ledger.untold(MLFLOW, campaign)),
    )


def figures_part(request: Request, campaign_id: str) -> Response:
    """Draw how a campaign goes."""
    from spectune.service.web.figures import (
        campaign_figures,  # Plotly, which the service need not wait for when it starts
    )

    context, campaign = context_of(request), find(request, campaign_id).campaign
    specification = restore(campaign.specification)
    trials = context.ledger.trials(campaign_id)
    shown = [
        each for arm in range(len(specification.arms)) for each in _best_of(trials, arm, campaign.objective["mode"])
    ]
    curves: dict[int, list[Any]] = {each.number: [] for each in shown}
    if curves:
        for observation in context.ledger.observations(campaign_id, of=list(curves)):
            if observation.trial in curves:
                curves[observation.trial].append(observation)
    return render(request, "figures.html", figures=_documents(campaign_figures(specification, trials, curves)))


def findings_part(request: Request, campaign_id: str) -> Response:
    """Show the report: verdicts, tables, tuning curves, importances, and what nothing dominates."""
    from spectune.service.findings.figures import report_figures  # Plotly and Optuna
    from spectune.service.findings.page import report_lines
    from spectune.service.findings.tables import report_tables

    report, _, _ = make_campaign_report(request, campaign_id)
    tables = Markup(report_tables(report))  # written and escaped there
    figures = _documents(report_figures(report))
    return render(request, "findings.html", figures=figures, lines=report_lines(report), tables=tables)


def trials_part(
    request: Request,
    campaign_id: str,
    arm: str = "",
    state: str = "",
    order_by: TrialOrder = "number",
    cursor: Cursor = None,
) -> Response:
    """List some of a campaign's trials."""
    campaign = find(request, campaign_id).campaign
    states = [TrialState(state)] if state in set(TrialState) else []
    page = list_trials(
        request, campaign_id, state=states, arm=arm or None, order_by=order_by, limit=_PAGE, cursor=cursor
    )
    arms = [each["name"] for each in campaign.specification["arms"]]
    chosen = {"arm": arm, "state": state, "order_by": order_by}
    return render(
        request, "trials.html", campaign=campaign, page=page, arms=arms, states=list(TrialState), chosen=chosen
    )


def tracking_part(request: Request, campaign_id: str) -> Response:
    """Lead to MLflow, which may be slow to say where."""
    return render(request, "tracking.html", links=tracking.read_campaign_tracking(request, campaign_id))


def log_part(request: Request, campaign_id: str) -> Response:
    """Show the end of what the driver printed."""
    text = bytes(read_log(request, campaign_id).body).decode()
    return render(request, "log.html", text=text)


def trial_page(request: Request, campaign_id: str, number: TrialNumber) -> Response:
    """Show one trial: its hyperparameters, its end, and every metric by step."""
    from spectune.service.web.figures import trial_figure  # Plotly

    campaign = find(request, campaign_id).campaign
    trial = read_trial(request, campaign_id, number)
    figure = trial_figure(context_of(request).ledger.observations_of(campaign_id, number))
    may_stop = not trial.state.is_terminal and caller_of(request).role.includes(Role.SUBMITTER)
    return render(
        request,
        "trial.html",
        campaign=campaign,
        trial=trial,
        figures=_documents([figure] if figure else []),
        may_stop=may_stop,
        printed=context_of(request).worker_output(campaign_id, number),
    )


def trial_tracking_part(request: Request, campaign_id: str, number: TrialNumber) -> Response:
    """Lead to a trial's run in MLflow."""
    return render(request, "tracking.html", links=tracking.read_trial_tracking(request, campaign_id, number))


def _verbs(request: Request, state: CampaignState, trials: Collection[TrialState]) -> list[str]:
    """Name what the caller may ask of a campaign in a state; what has failed nowhere need not be tried again."""
    if not caller_of(request).role.includes(Role.SUBMITTER) or state in _SETTLING:
        return []
    return [
        verb
        for event, verb in _VERBS.items()
        if CAMPAIGN_TRANSITIONS[event].get(state, state) is not state
        and (event is not CampaignEvent.RETRY or has_failures(state, trials))
    ]


def _best_of(trials: Sequence[TrialRecord], arm: int, mode: str) -> list[TrialRecord]:
    """Pick the trials of an arm whose curves are drawn: those that are furthest, and of these the best."""
    sign = 1.0 if mode == "minimize" else -1.0
    mine = [
        each for each in trials if each.arm == arm and each.objective is not None and each.objective == each.objective
    ]
    mine.sort(key=lambda trial: (-trial.last_step, sign * (trial.objective or 0.0), trial.number))
    return mine[:_NUM_CURVES]


def _documents(figures: Sequence[go.Figure]) -> list[Markup]:
    """Write figures as JSON that stands in a page; nothing in it ends the element it stands in."""
    return [Markup(figure.to_json().replace("<", "\\u003c")) for figure in figures]
