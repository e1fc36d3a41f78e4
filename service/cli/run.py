"""`spectune run` and `spectune demo`: a campaign on this machine, from a file to a leaderboard."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from spectune.service.app import embedded_campaign, embedded_launcher, embedded_pages, embedded_projection
from spectune.service.campaign.analysis.report import bound_warnings
from spectune.service.campaign.model import naming
from spectune.service.campaign.model.lifecycle import CampaignState
from spectune.service.campaign.model.records import CampaignRecord, Observation
from spectune.service.campaign.specification.catalog import installed_catalog
from spectune.service.campaign.specification.specification import (
    Specification,
    foreseen_resources,
    is_portable_foreseen,
    parse,
)
from spectune.service.campaign_file import read_document
from spectune.service.cli.consoles import output_console
from spectune.service.cli.interrupts import Interrupts
from spectune.service.cli.outcome import outcome_document, show_outcome, show_tracking
from spectune.service.cli.plans import achieved_line, fusion_lines, plan_line
from spectune.service.cli.progress import ProgressDisplay
from spectune.service.control.embedded import EmbeddedCampaign, settle_orphans
from spectune.service.data_directory import DataDirectory
from spectune.service.driver.cluster_address import require_cluster
from spectune.service.driver.temporary_folder import ray_folder
from spectune.service.errors import DataDirectoryError, LedgerError, TrackingError
from spectune.service.launchers import SubprocessLauncher
from spectune.service.ledger import Ledger
from spectune.service.ledger.reading import read_ledger
from spectune.service.settings import Settings
from spectune.service.tracking.projection import Projection

EXIT_NOT_SUCCEEDED = 1
EXIT_INTERRUPTED = 130
DEMO = Path(__file__).with_name("demo.yaml")  # a link into examples/; a wheel holds the file itself
_FOLDERS = ("corpus", "images")
_POLL_SECONDS = 0.5
_EARLY_CHANGES = 20_000  # enough to tell what a step takes
_LEDGER_PATIENCE_SECONDS = 120.0

DataDirOption = Annotated[Path, typer.Option("--data-dir", help="Where the ledger, MLflow's store and checkpoints go.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object last; everything else goes to stderr.")]
ResumeOption = Annotated[
    str | None, typer.Option("--resume", metavar="CAMPAIGN", help="Go on with a paused campaign, by its id.")
]
DEFAULT_DATA_DIR = Path("spectune-data")


def demo(data_dir: DataDirOption = DEFAULT_DATA_DIR, as_json: JsonOption = False) -> None:
    """Tune Muon, PolarGrad, ROOT and AdamW on a small language model of real text, in two minutes."""
    run(DEMO, data_dir=data_dir, as_json=as_json)


def run(
    campaign_file: Annotated[
        Path | None, typer.Argument(metavar="[CAMPAIGN.YAML]", help="The campaign to run.", show_default=False)
    ] = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
    resume: ResumeOption = None,
) -> None:
    """Run a campaign on this machine; Ctrl-C pauses it.

    The exit status is 0 if it succeeded, 1 if it failed or cannot be followed, 2 if it was refused, and 130 if it was
    paused by Ctrl-C or SIGTERM, or cancelled by two of them.
    """
    if (campaign_file is None) == (resume is None):
        raise typer.BadParameter("give either a campaign file or --resume with a campaign's id")
    console = output_console(stderr=as_json)
    settings = Settings.from_environment()
    require_cluster()
    if not os.environ.get("RAY_ADDRESS"):
        ray_folder()
    data = DataDirectory.at(data_dir)
    launcher = embedded_launcher(data)
    with ExitStack() as stack:
        if campaign_file is not None:
            campaign_id, specification = _read(campaign_file, launcher, stack)
        else:
            assert resume is not None
            campaign_id, specification = resume, parse(_recorded(data, resume).specification)
        data.check_writable()
        stack.enter_context(data.writing(settings.data_access))
        start = time.monotonic()
        stack.enter_context(data.locked())
        go_on = resume_command(campaign_id, data_dir)
        first_line = f"campaign {campaign_id}  data {data.root}  go on after a stop: {go_on}"
        console.print(first_line, highlight=False, markup=False, soft_wrap=True)
        ledger = stack.enter_context(_open_ledger(data))
        interrupts = stack.enter_context(Interrupts())
        orphans = settle_orphans(ledger, data)
        for orphan in orphans:
            console.print(f"campaign {orphan} had lost its process and was brought to rest", highlight=False)
        campaign = embedded_campaign(data, ledger, campaign_id, launcher)
        if resume is not None:
            campaign.resume()
        else:
            campaign.start(name=specification.name, specification=specification.document())
        projection = embedded_projection(data, campaign_id)
        was_interrupted = _follow(campaign, specification, console, interrupts, go_on=go_on)
        record, trials = campaign.record(), campaign.trials()
        observations = ledger.observations(campaign_id) if len(specification.objectives) > 1 else []
        _show_plans(console, specification, ledger, campaign)
        show_outcome(console, specification, record, trials, data=data, observations=observations)
        for warning in bound_warnings(specification, trials, catalog=installed_catalog()):
            console.print(f"[yellow]warning[/] {warning}", highlight=False, soft_wrap=True)
        if record.state is CampaignState.PAUSED:
            console.print(f"go on with: {go_on}", highlight=False, markup=False, soft_wrap=True)
        _finish_tracking(console, projection, record, data, interrupts)
    if as_json:
        wall_seconds = time.monotonic() - start
        outcome = outcome_document(specification, record, trials, wall_seconds=wall_seconds, observations=observations)
        sys.stdout.write(json.dumps(outcome) + "\n")
    raise typer.Exit(_exit_status(record.state, was_interrupted=was_interrupted))


def _show_plans(console: Console, specification: Specification, ledger: Ledger, campaign: EmbeddedCampaign) -> None:
    """Print what training trials together has gained, and what comparing them with trials alone has shown."""
    plans, trials = campaign.plans(), campaign.trials()
    early = ledger.changes(campaign.record().campaign_id, after=0, limit=_EARLY_CHANGES) if plans else []
    steps = [change for change in early if isinstance(change, Observation)]
    for plan in plans:
        if line := achieved_line(specification, plan, trials, steps):
            console.print(line, highlight=False, soft_wrap=True)
    for line in fusion_lines(specification, campaign.fusion_checks()):
        console.print(line, highlight=False, soft_wrap=True)


def _finish_tracking(
    console: Console, projection: Projection, record: CampaignRecord, data: DataDirectory, interrupts: Interrupts
) -> None:
    """Wait until MLflow holds the campaign, and print where it can be looked at; one that lags fails no campaign."""
    try:
        projection.finish(give_up=interrupts.take, on_wait=lambda why: console.print(why, markup=False))
        show_tracking(console, data=data, pages=embedded_pages(data).of_campaign(record))
    except TrackingError as error:
        told = f"warning {error}; the next run in this data directory makes up for it"
        console.print(told, markup=False, highlight=False, soft_wrap=True)


def _read(campaign_file: Path, launcher: SubprocessLauncher, stack: ExitStack) -> tuple[str, Specification]:
    """Read a new campaign and name it; checking it loads torch, and meanwhile a driver starts Ray.

    Raises:
        SpecificationError: The campaign is refused; nothing is created.
    """
    document = _with_absolute_folders(read_document(campaign_file))
    suffix = format(time.time_ns() // 1_000_000, "x")
    resources = foreseen_resources(document)
    if resources is not None and not os.environ.get("RAY_ADDRESS") and "torch" not in sys.modules:
        foreseen_id = naming.campaign_id(document["name"], suffix=suffix)
        is_portable = is_portable_foreseen(document)
        stack.enter_context(launcher.standing_by(foreseen_id, resources, is_portable=is_portable))
    specification = parse(document)
    return naming.campaign_id(specification.name, suffix=suffix), specification


def _recorded(data: DataDirectory, campaign_id: str) -> CampaignRecord:
    """Read a campaign to be resumed; nothing is created."""
    if not data.ledger.is_file():
        raise DataDirectoryError(f"no campaign was ever run in this data directory: got {data.root}")
    try:
        return read_ledger(data.ledger, lambda ledger: ledger.campaign(campaign_id), kind=Ledger)
    except LedgerError as error:
        raise DataDirectoryError(str(error)) from error


def _open_ledger(data: DataDirectory) -> Ledger:
    try:
        return Ledger.at(data.ledger)
    except LedgerError as error:
        raise DataDirectoryError(str(error)) from error


def _with_absolute_folders(document: Any) -> Any:
    """Make a task's folders absolute: the driver and its workers have working directories of their own."""
    task = document.get("task") if isinstance(document, dict) else None
    if not isinstance(task, dict):
        return document
    given = {option: task.get(option) for option in _FOLDERS}
    absolute = {option: os.path.abspath(path) for option, path in given.items() if isinstance(path, str) and path}
    return {**document, "task": {**task, **absolute}}


def resume_command(campaign_id: str, data_dir: Path) -> str:
    """Return the command that goes on with a paused campaign, to be copied into a shell."""
    where = [] if data_dir == DEFAULT_DATA_DIR else ["--data-dir", str(data_dir)]
    return shlex.join(["spectune", "run", "--resume", campaign_id, *where])


def _follow(
    campaign: EmbeddedCampaign, specification: Specification, console: Console, interrupts: Interrupts, *, go_on: str
) -> bool:
    """Follow the campaign until it rests; Ctrl-C asks it to pause, a second one cancels it and ends it at once.

    Returns:
        Whether it was interrupted.
    """
    for warning in specification.warnings():
        console.print(f"[yellow]warning[/] {warning}", highlight=False, soft_wrap=True)
    refused_since: float | None = None
    num_plans = num_interrupts = num_heard = 0
    with ProgressDisplay(specification, console) as display:
        while True:
            try:
                while interrupts.take():
                    num_interrupts += 1
                if num_interrupts > num_heard:  # also one that the ledger would not take a moment ago
                    _stop(campaign, display, num_interrupts, go_on)
                    num_heard = num_interrupts
                at_rest = campaign.watch()
                for plan in campaign.plans()[num_plans:]:
                    display.say(plan_line(specification, plan))
                    num_plans += 1
                display.show(campaign.record(), campaign.trials())
                refused_since = None
            except LedgerError as error:
                refused_since = _bear(error, refused_since, display)
                at_rest = False
            if at_rest:
                return num_interrupts > 0
            time.sleep(_POLL_SECONDS)


def _stop(campaign: EmbeddedCampaign, display: ProgressDisplay, num_interrupts: int, go_on: str) -> None:
    if num_interrupts == 1:
        campaign.pause()
        display.say(f"pausing; go on later with: {go_on}")
        display.say("press Ctrl-C again to cancel the campaign for good and end every process at once")
    else:
        campaign.cancel()
        campaign.kill()


def _bear(error: LedgerError, refused_since: float | None, display: ProgressDisplay) -> float:
    """Bear a ledger that refuses for a while: the driver goes on, and its spool loses nothing."""
    now = time.monotonic()
    if refused_since is None:
        display.say(f"waiting for the ledger: {error}")
        return now
    if now - refused_since > _LEDGER_PATIENCE_SECONDS:
        raise error
    return refused_since


def _exit_status(state: CampaignState, *, was_interrupted: bool) -> int:
    match state:
        case CampaignState.SUCCEEDED:
            return 0
        case CampaignState.CANCELLED:
            return EXIT_INTERRUPTED
        case CampaignState.PAUSED if was_interrupted:
            return EXIT_INTERRUPTED
        case _:
            return EXIT_NOT_SUCCEEDED
