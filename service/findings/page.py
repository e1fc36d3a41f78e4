"""The report as one HTML file: Plotly figures with the script inside, so that it needs no net and can be mailed.

Its policy lets it run the two scripts that it carries, by their hashes, and open no connection. The figures are data,
which the second script draws.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from functools import cache

import plotly.graph_objects as go

from spectune.service.campaign.analysis.report import Report
from spectune.service.campaign.model.records import TrialRecord
from spectune.service.campaign.specification.specification import Specification
from spectune.service.findings.best import best_line
from spectune.service.findings.comparison_lines import verdict_lines
from spectune.service.findings.figures import learning_rate_figure, report_figures
from spectune.service.findings.plotly_script import plotly_script
from spectune.service.findings.tables import report_tables

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h1{font-size:1.6rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}"
    "table{border-collapse:collapse;width:100%;font-size:.85rem;font-variant-numeric:tabular-nums}"
    "th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}th{color:#555}"
)


_DRAW = """
for (const script of document.querySelectorAll(".figure > script")) {
  const { data, layout } = JSON.parse(script.textContent);
  const place = script.parentElement;
  script.remove();
  Plotly.newPlot(place, data, layout, { responsive: true });
}
"""


def report_page(report: Report, specification: Specification, trials: Sequence[TrialRecord]) -> str:
    """Write the page.

    Args:
        report: The campaign's.
        specification: What was asked for.
        trials: All its trials.
    """
    figures = [*report_figures(report), learning_rate_figure(specification, trials)]
    parts = [f'<div class="figure">{_data(figure)}</div>' for figure in figures if figure is not None]
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
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}"><meta name="referrer" content="no-referrer">'
        f"<title>{title}</title><style>{_STYLE}</style><script>{plotly_script()}</script></head><body><h1>{title}</h1><p>{asked}</p><p>{summary}</p><ul>{said}</ul>"
        f"{report_tables(report)}{''.join(parts)}<script>{_DRAW}</script></body></html>"
    )


def _data(figure: go.Figure) -> str:
    """Write a figure as data that stands in a page; nothing in it ends the element it stands in."""
    document = figure.to_json().replace("<", "\\u003c")
    return f'<script type="application/json">{document}</script>'


@cache
def _policy() -> str:
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in (plotly_script(), _DRAW))
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'none'; "
        "form-action 'none'; base-uri 'none'"
    )


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def report_lines(report: Report) -> list[str]:
    """Say in sentences what was found: what cannot be compared, the verdicts between arms, then the notes."""
    num_first = 1 if report.lacking else 0
    verdicts = verdict_lines(report.verdicts, names=[arm.name for arm in report.arms])
    return [*report.notes[:num_first], *verdicts, *report.notes[num_first:]]
