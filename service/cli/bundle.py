"""`spectune bundle`: a campaign as one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from service.cli.run import DEFAULT_DATA_DIR, DataDirOption
from service.cli.stored import CampaignArgument, read_stored
from service.findings.bundle import Bundle, BundledTrial, write_bundle
from service.written_files import write_output


def bundle(
    campaign: CampaignArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it, as campaign.zip.")],
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Write a campaign into one file: specification, environment, seeds, curves and report, with checksums."""
    from service.campaign.catalog import installed_catalog
    from service.findings.documents import campaign_documents  # torch, Optuna and Plotly

    stored = read_stored(data_dir, campaign)
    documents = campaign_documents(stored.record, stored.trials, stored.observations, catalog=installed_catalog())
    content = write_bundle(documents, stored.specification, stored.trials, stored.observations)
    write_output(file, content, name="the bundle")
    typer.echo(f"{file}: {len(stored.trials)} trials, {len(content)} bytes", err=True)


def best_trials(found: Bundle) -> list[BundledTrial]:
    """Choose the trials of each arm's best point: those of the finals where there are any, else of the search."""
    metric, sign = (
        found.specification.objective.metric,
        1.0 if found.specification.objective.mode == "minimize" else -1.0,
    )
    chosen = []
    for arm in found.specification.arms:
        done = [each for each in found.trials if each.arm == arm.name and each.state == "COMPLETED" and each.curve]
        some = [each for each in done if each.phase == "final"] or [each for each in done if each.phase == "search"]
        points: dict[int, list[BundledTrial]] = {}
        for each in some:
            points.setdefault(each.point, []).append(each)
        if points:
            chosen += min(points.values(), key=lambda trials: sign * fmean(_last(trial)[metric] for trial in trials))
    return chosen


def _last(trial: BundledTrial) -> Mapping[str, float]:
    return trial.curve[max(trial.curve)]
