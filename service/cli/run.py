"""`spectune run` and `spectune demo`: a campaign on this machine, from a file to a leaderboard."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

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
from service.embedded import EmbeddedCampaign, Projection
from service.errors import TrackingError
from service.ledger import Ledger

EXIT_NOT_SUCCEEDED = 1
EXIT_INTERRUPTED = 130
DEMO = Path(__file__).parents[2] / "examples" / "demo.yaml"
_POLL_SECONDS = 0.5

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
    specification = parse(read_document(campaign_file))
    data = DataDirectory(data_dir.resolve())
    data.check_writable()
    data.create()
    start = time.monotonic()
    with Ledger.at(data.ledger) as ledger:
        campaign_id = naming.campaign_id(specification.name, suffix=format(time.time_ns() // 1_000_000, "x"))
        campaign = embedded_campaign(data, ledger, campaign_id)
        projection = embedded_projection(data, campaign_id)
        _run_to_rest(campaign, specification, console)
        record, trials = campaign.record(), campaign.trials()
        show_outcome(console, specification, record, trials, data=data)
        _finish_tracking(projection, data, console)
    if as_json:
        wall_seconds = time.monotonic() - start
        sys.stdout.write(json.dumps(outcome_document(specification, record, trials, wall_seconds=wall_seconds)) + "\n")
    raise typer.Exit(_exit_status(record.state))


def _finish_tracking(projection: Projection, data: DataDirectory, console: Console) -> None:
    """Wait until MLflow holds everything, and say how to look at it; a tracker that lags fails no campaign."""
    try:
        show_tracking(console, data=data, page=projection.finish())
    except TrackingError as error:
        console.print(f"[yellow]warning[/] {error}", highlight=False)


def _run_to_rest(campaign: EmbeddedCampaign, specification: Specification, console: Console) -> None:
    """Launch the campaign and follow it until it rests; Ctrl-C asks it to stop, a second one ends it."""
    for warning in specification.warnings():
        console.print(f"[yellow]warning[/] {warning}", highlight=False)
    interrupts = Interrupts()
    with interrupts, ProgressDisplay(specification, console) as display:
        campaign.start(name=specification.name, specification=specification.document())
        while not campaign.watch():
            if interrupts.take():
                display.say("stopping; press Ctrl-C again to end every process at once")
                campaign.cancel()
            display.show(campaign.record(), campaign.trials())
            time.sleep(_POLL_SECONDS)
        display.show(campaign.record(), campaign.trials())


def _exit_status(state: CampaignState) -> int:
    match state:
        case CampaignState.SUCCEEDED:
            return 0
        case CampaignState.CANCELLED:
            return EXIT_INTERRUPTED
        case _:
            return EXIT_NOT_SUCCEEDED
