"""`spectune run` and `spectune demo`: a campaign on this machine, from a file to a leaderboard."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from service.app import embedded_campaign, embedded_projection
from service.campaign import naming
from service.campaign.lifecycle import CampaignState
from service.campaign.specification import Specification, parse
from service.cli.document import read_document
from service.cli.interrupts import Interrupts
from service.cli.outcome import outcome_document, show_outcome, show_tracking
from service.cli.progress import ProgressDisplay
from service.data_directory import DataDirectory
from service.embedded import EmbeddedCampaign, Projection, settle_orphans
from service.errors import DataDirectoryError, LedgerError, TrackingError
from service.ledger import Ledger
from service.tracking.links import MLFLOW

EXIT_NOT_SUCCEEDED = 1
EXIT_INTERRUPTED = 130
DEMO = Path(__file__).parents[2] / "examples" / "demo.yaml"
_POLL_SECONDS = 0.5
_LEDGER_PATIENCE_SECONDS = 120.0

DataDirOption = Annotated[Path, typer.Option("--data-dir", help="Where the ledger, MLflow's store and checkpoints go.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object last; everything else goes to stderr.")]
DEFAULT_DATA_DIR = Path("spectune-data")


def demo(data_dir: DataDirOption = DEFAULT_DATA_DIR, as_json: JsonOption = False) -> None:
    """Tune Muon, PolarGrad, ROOT and AdamW on a small language model of real text, in two minutes."""
    run(DEMO, data_dir=data_dir, as_json=as_json)


def run(
    campaign_file: Annotated[Path, typer.Argument(metavar="CAMPAIGN.YAML", help="The campaign to run.")],
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Run a campaign on this machine; Ctrl-C stops it cleanly."""
    console = Console(stderr=as_json)
    specification = parse(_with_absolute_corpus(read_document(campaign_file)))
    data = DataDirectory(data_dir.resolve())
    data.check_writable()
    data.create()
    start = time.monotonic()
    with data.locked(), _open_ledger(data) as ledger, Interrupts() as interrupts:
        orphans = settle_orphans(ledger, data)
        for orphan in orphans:
            console.print(f"campaign {orphan} had lost its process and was brought to rest", highlight=False)
        campaign_id = naming.campaign_id(specification.name, suffix=format(time.time_ns() // 1_000_000, "x"))
        campaign = embedded_campaign(data, ledger, campaign_id)
        campaign.start(name=specification.name, specification=specification.document())
        projection = embedded_projection(data, [*_behind(ledger, campaign_id), campaign_id])
        _follow(campaign, specification, console, interrupts)
        record, trials = campaign.record(), campaign.trials()
        show_outcome(console, specification, record, trials, data=data)
        _finish_tracking(projection, data, console, interrupts)
    if as_json:
        wall_seconds = time.monotonic() - start
        sys.stdout.write(json.dumps(outcome_document(specification, record, trials, wall_seconds=wall_seconds)) + "\n")
    raise typer.Exit(_exit_status(record.state))


def _open_ledger(data: DataDirectory) -> Ledger:
    try:
        return Ledger.at(data.ledger)
    except LedgerError as error:
        raise DataDirectoryError(str(error)) from error


def _with_absolute_corpus(document: Any) -> Any:
    """Make a corpus folder absolute: the driver and its workers have working directories of their own."""
    task = document.get("task") if isinstance(document, dict) else None
    if not isinstance(task, dict) or not isinstance(task.get("corpus"), str):
        return document
    return {**document, "task": {**task, "corpus": os.path.abspath(task["corpus"])}}


def _behind(ledger: Ledger, campaign_id: str) -> list[str]:
    """List the earlier campaigns that MLflow does not hold whole: their owner was killed."""
    earlier = [each for each in reversed(ledger.campaigns()) if each.campaign_id != campaign_id]
    return [each.campaign_id for each in earlier if ledger.cursor(MLFLOW, each.campaign_id) < each.sequence]


def _finish_tracking(projection: Projection, data: DataDirectory, console: Console, interrupts: Interrupts) -> None:
    """Wait until MLflow holds everything, and say how to look at it; a tracker that lags fails no campaign."""
    try:
        show_tracking(console, data=data, page=projection.finish(give_up=interrupts.take))
    except TrackingError as error:
        console.print(f"[yellow]warning[/] {error}; the next run in this data directory makes up for it")


def _follow(campaign: EmbeddedCampaign, specification: Specification, console: Console, interrupts: Interrupts) -> None:
    """Follow the campaign until it rests; Ctrl-C asks it to stop, a second one ends it at once."""
    for warning in specification.warnings():
        console.print(f"[yellow]warning[/] {warning}", highlight=False)
    refused_since: float | None = None
    with ProgressDisplay(specification, console) as display:
        while True:
            try:
                if interrupts.take():
                    display.say("stopping; press Ctrl-C again to end every process at once")
                    campaign.cancel()
                at_rest = campaign.watch()
                display.show(campaign.record(), campaign.trials())
                refused_since = None
            except LedgerError as error:
                refused_since = _bear(error, refused_since, display)
                at_rest = False
            if at_rest:
                return
            time.sleep(_POLL_SECONDS)


def _bear(error: LedgerError, refused_since: float | None, display: ProgressDisplay) -> float:
    """Bear a ledger that refuses for a while: the driver goes on, and its spool loses nothing."""
    now = time.monotonic()
    if refused_since is None:
        display.say(f"waiting for the ledger: {error}")
        return now
    if now - refused_since > _LEDGER_PATIENCE_SECONDS:
        raise error
    return refused_since


def _exit_status(state: CampaignState) -> int:
    match state:
        case CampaignState.SUCCEEDED:
            return 0
        case CampaignState.CANCELLED:
            return EXIT_INTERRUPTED
        case _:
            return EXIT_NOT_SUCCEEDED
