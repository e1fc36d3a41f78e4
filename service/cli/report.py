"""`spectune report`: what a campaign says about its optimizers, for people, for programs, and as a page of figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spectune.service.campaign.model.numbers import interval_text
from spectune.service.cli.consoles import output_console, print_table
from spectune.service.cli.run import DEFAULT_DATA_DIR, DataDirOption, JsonOption
from spectune.service.cli.stored import CampaignArgument, StoredCampaign, read_stored
from spectune.service.findings.best import best_line
from spectune.service.findings.comparison_lines import verdict_lines
from spectune.service.written_files import write_output

if TYPE_CHECKING:
    from spectune.service.campaign.analysis.report import ArmReport, Report

HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Write one HTML file with figures here; it needs no net.")
]


def report(
    campaign: CampaignArgument,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
    html: HtmlOption = None,
) -> None:
    """Compare a campaign's optimizers: finals, verdicts, sensitivity, importances, what stopping early has cost."""
    stored = read_stored(data_dir, campaign)
    made = report_on(stored)
    if html is not None:
        _write_page(html, stored, made)
    if as_json:
        sys.stdout.write(json.dumps(made.document(), allow_nan=False) + "\n")
    else:
        show_report(output_console(), made)


def report_on(stored: StoredCampaign) -> Report:
    """Make the report of a stored campaign; imports torch and Optuna."""
    from spectune.service.campaign.analysis.report import make_report
    from spectune.service.campaign.specification.catalog import installed_catalog

    return make_report(
        stored.specification, stored.record, stored.trials, stored.observations, catalog=installed_catalog()
    )


def show_report(console: Console, report: Report) -> None:
    """Print the report for people."""
    console.print(f"\n{report.campaign_id}  {report.state}", highlight=False)
    num_first = 1 if report.lacking else 0
    for note in report.notes[:num_first]:  # before any number
        console.print(f"[bold red]{escape(note)}[/]", highlight=False, soft_wrap=True)
    console.print(f"{report.objective} at step {report.steps}, to {report.mode}", highlight=False)
    console.print(f"{report.progress}. {best_line(report)}", highlight=False, markup=False, soft_wrap=True)
    print_table(console, _arms_table(report))
    verdicts = verdict_lines(report.verdicts, names=[arm.name for arm in report.arms])
    for line in [*verdicts, *_sensitivity_lines(report), *_regret_lines(report), *_pareto_lines(report)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for note in report.notes[num_first:]:
        console.print(f"[yellow]note[/] {note}", highlight=False, soft_wrap=True)


def _arms_table(report: Report) -> Table:
    table = Table()
    for column in ("arm", "trials", "device s", "best search value", "finals ± 95 %", "seeds", "curve"):
        table.add_column(column, justify="left" if column in ("arm", "curve") else "right", no_wrap=True)
    for arm in report.arms:
        finals = arm.finals
        told = "-" if finals is None or finals.mean is None else interval_text(finals.mean, finals.half_width)
        table.add_row(
            arm.name,
            str(sum(arm.num_trials.values())),
            f"{arm.device_seconds:.3g}",
            "none completed" if arm.best is None else interval_text(arm.best.value, arm.best.half_width),
            told,
            "-" if finals is None else f"{len(finals.values)} of {finals.num_seeds}",
            "no band" if arm.curve.reason else "95 % band",
        )
    return table


def _sensitivity_lines(report: Report) -> list[str]:
    lines = []
    for arm in report.arms:
        if arm.importances:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in arm.importances.items())
            lines.append(f"{arm.name}: importance: {shares}")
        for name, basin in arm.basins.items():
            width = f"{basin.share:.0%} of the range" if basin.decades is None else f"{basin.decades:.2f} decades"
            lines.append(
                f"{arm.name}: nearly as good with {name} in [{basin.low:.4g}, {basin.high:.4g}], {width} "
                f"({basin.num_points} points)"
            )
    return lines


def _regret_lines(report: Report) -> list[str]:
    return [
        f"{arm.name}: {arm.regret.num_wrong} of {arm.regret.num_audited} audited stops were wrong "
        f"(95 %: {arm.regret.interval[0]:.0%} to {arm.regret.interval[1]:.0%}); the worst cost {arm.regret.largest:.3g}"
        for arm in report.arms
        if arm.regret is not None
    ]


def _pareto_lines(report: Report) -> list[str]:
    def told(arm: ArmReport, point: int, costs: dict[str, float]) -> str:
        return f"  {arm.name} point {point}: " + ", ".join(f"{name} {cost:.4g}" for name, cost in costs.items())

    if not report.pareto:
        return []
    names = " and ".join(report.pareto[0].costs)
    return [f"nothing dominates, in {names}:"] + [
        told(report.arms[each.arm], each.point, dict(each.costs)) for each in report.pareto
    ]


def _write_page(path: Path, stored: StoredCampaign, made: Report) -> None:
    from spectune.service.findings.page import report_page

    page = report_page(made, stored.specification, stored.trials)
    write_output(path, page.encode(), name="the page")
