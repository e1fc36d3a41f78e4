"""The verbs that speak to a service, from `submit` to `logs`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from spectune.service.campaign.model.clean_text import clean_text
from spectune.service.campaign.model.numbers import from_json, interval_text
from spectune.service.campaign.model.progress import duration_text, untold_text
from spectune.service.cli.consoles import output_console, print_table
from spectune.service.client import Client

UrlOption = Annotated[str, typer.Option("--url", envvar="SPECTUNE_URL", help="Where the service is.")]
_TEXT_WIDTH = 14  # of a column of words on a narrow terminal
DEFAULT_URL = "http://127.0.0.1:8000"
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CampaignArgument = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="The id of a campaign.")]
FileArgument = Annotated[Path, typer.Argument(metavar="CAMPAIGN.YAML", help="A campaign file.")]


def submit(
    campaign_file: FileArgument,
    url: UrlOption = DEFAULT_URL,
    priority: Annotated[int, typer.Option("--priority", help="The greatest first.")] = 0,
    key: Annotated[
        str | None, typer.Option("--key", help="Submitting again with the same key changes nothing.")
    ] = None,
) -> None:
    """Submit a campaign and print its id."""
    with _client(url) as client:
        print(client.submit(_document(campaign_file), priority=priority, key=key)["id"])


def preview(campaign_file: FileArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Say what a campaign would do, without submitting it."""
    with _client(url) as client:
        _print_json(client.preview(_document(campaign_file)))


def list_campaigns(url: UrlOption = DEFAULT_URL, as_json: JsonFlag = False) -> None:
    """List campaigns, the newest first."""
    with _client(url) as client:
        found = list(client.campaigns())
    if as_json:
        _print_json(found)
        return
    table = Table()
    for column in ("campaign", "owner", "state", "trials", "best", "why"):
        is_name = column in ("campaign", "owner", "state")
        table.add_column(column, no_wrap=is_name, overflow="fold", min_width=None if is_name else _TEXT_WIDTH)
    for each in found:
        why = each["waiting_for"] or each["message"]
        table.add_row(each["id"], each["owner"], each["state"], _trials(each), _best(each), why)
    print_table(output_console(), table)


def show(campaign_id: CampaignArgument, url: UrlOption = DEFAULT_URL, as_json: JsonFlag = False) -> None:
    """Show a campaign and its best point."""
    with _client(url) as client:
        campaign, best = client.campaign(campaign_id), client.best(campaign_id)
        tracking = client.tracking(campaign_id)
    if as_json:
        _print_json({**campaign, "best": best["best"], "lacking": best["lacking"], "tracking": tracking})
        return
    console = output_console()
    why = campaign["waiting_for"] or campaign["message"] or campaign["reason"]
    console.print(f"{campaign['id']}  {campaign['state']}  {why}", markup=False)
    if best["lacking"]:
        console.print(best["lacking"], markup=False, style="bold red")
    console.print(f"trials: {_trials(campaign)}", markup=False)
    if campaign["num_set_aside"]:
        console.print(f"{campaign['num_set_aside']} records cannot be entered: see {campaign['links']['set-aside']}")
    if best["best"] is not None:
        point = best["best"]
        console.print(f"best {best['metric']}: {_value(point)} ({point['arm']}, {best['how']})", markup=False)
        console.print(json.dumps(point["config"]), markup=False)
    else:
        console.print(f"no best point: {best['why_no_best']}", markup=False)
    for line in tracking_lines(tracking):
        console.print(line, markup=False)


def watch(campaign_id: CampaignArgument, url: UrlOption = DEFAULT_URL, as_json: JsonFlag = False) -> None:
    """Follow a campaign until it ends; the exit status is 0 if it succeeded."""
    console = output_console()
    with _client(url) as client:
        for event in client.events(campaign_id):
            if as_json:
                print(json.dumps(event), flush=True)
            elif event["event"] == "campaign_moved":
                data = event["data"]
                console.print(f"{data['state']}  {data['reason']}  {data['message']}", markup=False)
            elif event["event"] == "trial_moved" and event["data"]["state"] not in ("RUNNING", "PENDING"):
                data = event["data"]
                console.print(f"trial {data['trial']}  {data['state']}  {data['reason']}", markup=False)
        state = client.campaign(campaign_id)["state"]
    raise typer.Exit(0 if state == "SUCCEEDED" else 1)


def cancel(campaign_id: CampaignArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Cancel a campaign."""
    _act(campaign_id, "cancel", url)


def pause(campaign_id: CampaignArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Pause a campaign; its trials keep their checkpoints."""
    _act(campaign_id, "pause", url)


def resume(campaign_id: CampaignArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Queue a paused campaign again."""
    _act(campaign_id, "resume", url)


def retry(campaign_id: CampaignArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Run the failed trials of an ended campaign again."""
    _act(campaign_id, "retry-failed", url)


def extend(
    campaign_id: CampaignArgument,
    points: Annotated[int, typer.Option("--points", min=1, help="Of each arm, in all.")],
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Give each arm of an ended campaign more points."""
    with _client(url) as client:
        campaign = client.extend(campaign_id, points=points)
    print(f"{campaign['id']} {campaign['state']}")


def stop(
    campaign_id: CampaignArgument,
    number: Annotated[int, typer.Argument(metavar="TRIAL", min=0, help="The number of a trial.")],
    url: UrlOption = DEFAULT_URL,
) -> None:
    """End one trial of a campaign."""
    with _client(url) as client:
        trial = client.stop_trial(campaign_id, number)
    print(f"{campaign_id} trial {trial['number']} {trial['state']}")


def logs(
    campaign_id: CampaignArgument,
    trial: Annotated[
        int | None, typer.Option("--trial", min=0, help="Only what the code of this trial printed.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Read this data directory instead of asking a service.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Show the end of what a campaign's driver printed, and what the code of its trials printed in workers."""
    if data_dir is not None:
        text = _stored_logs(data_dir.resolve(), campaign_id, trial)
    else:
        with _client(url) as client:
            text = client.logs(campaign_id, trial=trial)
    print(text, end="" if text.endswith("\n") else "\n")


def _document(campaign_file: Path) -> Any:
    from spectune.service.campaign_file import read_document  # YAML, which most verbs need not wait for

    return read_document(campaign_file)


def _stored_logs(root: Path, campaign_id: str, trial: int | None) -> str:
    from spectune.service.cli.stored import read_stored  # the database, which a service has elsewhere
    from spectune.service.data_directory import DataDirectory
    from spectune.service.findings.worker_output import read_output

    data = DataDirectory(root)
    attempts = read_stored(data.root, campaign_id).record.attempt
    printed = read_output(data.output(campaign_id), trial=trial)
    if trial is not None:
        return printed or f"nothing that trial {trial} printed is kept"
    logs = [data.driver_log(campaign_id, attempt) for attempt in range(attempts, 0, -1)]
    last = next((log.read_text(encoding="utf-8", errors="replace") for log in logs if log.exists()), "")
    return "\n".join(filter(None, [clean_text(last), printed])) or "nothing was printed"


def tracking_lines(tracking: dict[str, Any]) -> list[str]:
    """Return where in MLflow a campaign can be looked at, or why nobody knows."""
    untold = [text] if (text := untold_text(tracking["num_untold"])) else []
    if tracking["problem"] is not None:
        return [f"MLflow: {tracking['problem']}", *untold]
    named = {"the campaign": "run", "its trials and their curves": "trials", "its best trials, compared": "best"}
    found = {name: tracking[page] for name, page in named.items() if tracking[page] is not None}
    lines = [f"{name}: {page}" for name, page in found.items()] or ["MLflow does not hold the campaign yet"]
    return [*lines, *untold]


def _act(campaign_id: str, verb: str, url: str) -> None:
    with _client(url) as client:
        campaign = client.act(campaign_id, verb)
    print(f"{campaign['id']} {campaign['state']}")


def _client(url: str) -> Client:
    return Client(url, api_key=os.environ.get("SPECTUNE_API_KEY") or None)


def _trials(campaign: dict[str, Any]) -> str:
    progress = campaign["progress"]
    left = progress["eta_seconds"]
    return str(progress["text"]) + ("" if left is None else f", about {duration_text(left)} left")


def _best(campaign: dict[str, Any]) -> str:
    best = campaign["best"]
    return str(campaign["why_no_best"]) if best is None else f"{_value(best)} ({best['arm']}, {best['how']})"


def _value(point: dict[str, Any]) -> str:
    half_width = None if point["half_width"] is None else from_json(point["half_width"])
    return interval_text(from_json(point["value"]), half_width)


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=1))
