"""Time what stands around the training of a campaign: `spectune run` of four trials that take no time.

    python -m benchmarks.start [--rounds 3] [--against /elsewhere/.venv/bin/spectune] [--json FILE]

Each round runs the campaign once here and once with another installation, if one is named, in turns. Seconds are wall
time from the start of the command, medians over the rounds, and read from the ledger: until the campaign exists, until
its driver has claimed it, until the first report, until it has ended, until the command has. `processor` is what all
processes of the command have used, which says more than wall time on a machine that has other things to do.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.kept import keep
from spectune.service.ledger import ServiceLedger

CAMPAIGN: Final[dict[str, Any]] = {
    "name": "start",
    "task": {"name": "matrix_completion", "rows": 30, "columns": 20, "rank": 2, "steps": 60},
    "objective": {"metric": "validation_loss", "mode": "minimize", "every_steps": 20},
    "arms": [{"optimizer": "muon", "space": {"lr": {"log_uniform": [0.01, 1.0]}}, "fixed": {"weight_decay": 0.0}}],
    "search": {"sampler": "random", "points": 4, "deterministic": True},
    "resources": {"workers": 2, "cpus": 1},
}
MARKS: Final = ("campaign exists", "claimed", "first report", "campaign ended", "command ended", "processor")


def run(spectune: str) -> dict[str, float]:
    """Run the campaign once with a command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "campaign.yaml").write_text(json.dumps(CAMPAIGN))  # JSON is YAML
        used, began, began_at = _processor_seconds(), time.perf_counter(), time.time()
        command = [spectune, "run", str(folder / "campaign.yaml"), "--data-dir", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        ended, used = time.perf_counter() - began, _processor_seconds() - used
        with ServiceLedger.at(folder / "ledger.sqlite") as ledger:
            (campaign,) = ledger.campaigns()
            (attempt,) = ledger.attempts(campaign.campaign_id)
            reports = ledger.observations(campaign.campaign_id)
    assert campaign.state == "SUCCEEDED", f"the campaign must succeed: got {campaign.state}, {campaign.message}"
    assert attempt.claimed_at is not None, "a campaign that succeeded had a driver"
    first = min(each.produced_at for each in reports)
    moments = (campaign.created_at, attempt.claimed_at, first, campaign.since)
    return dict(zip(MARKS, [*(each / 1000 - began_at for each in moments), ended, used], strict=True))


def _processor_seconds() -> float:
    """Return what ended children, and theirs that were waited for, have used."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sides = {"here": str(Path(sys.executable).with_name("spectune"))}
    if arguments.against is not None:
        sides["there"] = arguments.against
    rounds = [{side: run(command) for side, command in sides.items()} for _ in range(arguments.rounds)]
    medians = {side: {mark: median(each[side][mark] for each in rounds) for mark in MARKS} for side in sides}
    print("seconds  " + "  ".join(MARKS))
    for side, seconds in medians.items():
        print(f"{side:7}  " + "  ".join(f"{seconds[mark]:{len(mark)}.1f}" for mark in MARKS))
    if arguments.json is not None:
        keep(arguments.json, {"rounds": rounds, "medians": medians})


if __name__ == "__main__":
    main()
