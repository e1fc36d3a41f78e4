"""The report as one HTML file: Plotly figures with the script inside, so that it needs no net and can be mailed."""

from __future__ import annotations

import html
from collections.abc import Sequence

from plotly.offline import get_plotlyjs

from service.campaign.records import TrialRecord
from service.campaign.report import Report
from service.campaign.specification import Specification
from service.findings.best import best_line
from service.findings.figures import learning_rate_figure, report_figures
from service.findings.tables import report_tables
from service.findings.verdict_lines import verdict_lines

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h1{font-size:1.6rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}"
    "table{border-collapse:collapse;width:100%;font-size:.85rem;font-variant-numeric:tabular-nums}"
    "th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}th{color:#555}"
)


def report_page(report: Report, specification: Specification, trials: Sequence[TrialRecord]) -> str:
    """Write the page.

    Args:
        report: The campaign's.
        specification: What was asked for.
        trials: All its trials.
    """
    figures = [*report_figures(report), learning_rate_figure(specification, trials)]
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"figure-{number}")  # else a random one
        for number, figure in enumerate(figures)
        if figure is not None
    ]
    title = html.escape(f"{report.campaign_id}: {report.objective} at step {report.steps}")
    seeds = specification.search.seeds
    asked = html.escape(
        f"{specification.name}: {specification.task.name}, to {report.mode}; {specification.search.sampler} over "
        f"{specification.search.points} points of each arm with {seeds} seed{'s' if seeds > 1 else ''}, stopping "
        f"{specification.stopping.rule}; the campaign is {report.state}"
    )
    summary = html.escape(f"{report.progress}. {best_line(report)}.")
    said = "".join(f"<li>{html.escape(line)}</li>" for line in report_lines(report))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<script>{get_plotlyjs()}</script></head><body><h1>{title}</h1><p>{asked}</p><p>{summary}</p><ul>{said}</ul>"
        f"{report_tables(report)}{''.join(parts)}</body></html>"
    )


def report_lines(report: Report) -> list[str]:
    """Say in sentences what was found: the verdicts between arms, then the notes."""
    return [*verdict_lines(report.verdicts, names=[arm.name for arm in report.arms]), *report.notes]
