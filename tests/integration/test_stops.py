"""Whoever ends a campaign, and why: it takes one path, and ten seconds later nothing of it is left.

Every test run tries Ctrl-C (`test_survival.py`) and a spent budget, `make faults` all four ways.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from spectune.service.ledger import Ledger
from tests.integration.conftest import Run
from tests.integration.surviving import VANISH_SECONDS, assert_gone, document

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

STOPS = {
    "Ctrl-C": ("PAUSED", 130),
    "Ctrl-C twice": ("CANCELLED", 130),
    "SIGTERM": ("PAUSED", 130),
    "pause": ("PAUSED", 1),
    "budget": ("SUCCEEDED", 0),
}


TRIED = list(STOPS) if os.environ.get("SPECTUNE_FAULTS") else ["budget"]


@pytest.mark.parametrize("stop", TRIED)
def test_ten_seconds_after_the_stop_no_process_of_the_campaign_is_left(stop: str, tmp_path: Path) -> None:
    run = Run(endless(stop), tmp_path)
    run.wait_for(lambda run: run.num_observations() > 5)
    driver: psutil.Process = run.wait_for(Run.driver)
    family = [driver, *driver.children(recursive=True)]
    match stop:
        case "Ctrl-C":
            run.process.send_signal(signal.SIGINT)
        case "Ctrl-C twice":
            run.process.send_signal(signal.SIGINT)
            run.wait_for(is_pausing)
            run.process.send_signal(signal.SIGINT)
        case "SIGTERM":
            run.process.send_signal(signal.SIGTERM)
        case "pause":
            driver.send_signal(signal.SIGTERM)
        case "budget":
            run.wait_for(has_stopped)
    asked_at = time.monotonic()
    assert_gone(family)
    assert time.monotonic() - asked_at < VANISH_SECONDS + 1.0
    outcome = run.finish()
    assert (outcome.document["state"], outcome.exit_status) == STOPS[stop]
    with Ledger.at(run.data.ledger) as ledger:
        trials = ledger.trials(outcome.document["campaign_id"])
    rests_in = "PENDING" if STOPS[stop][0] == "PAUSED" else "CANCELLED"
    assert rests_in in {trial.state for trial in trials} <= {rests_in, "COMPLETED"}


def endless(stop: str) -> dict[str, Any]:
    """Make a campaign that ends only if it is ended."""
    made = document("random")
    made["task"] |= {"steps": 400_000}
    made["stopping"] = {"rule": "none"}
    return made | ({"budget": {"device_seconds": 6}} if stop == "budget" else {})


def is_pausing(run: Run) -> bool:
    """Whether the first of two interrupts has arrived."""
    with Ledger.at(run.data.ledger) as ledger:
        (campaign,) = ledger.campaigns()
        return campaign.state in ("PAUSING", "PAUSED")


def has_stopped(run: Run) -> bool:
    """Whether the ledger knows of a trial that was taken out."""
    with Ledger.at(run.data.ledger) as ledger:
        (campaign,) = ledger.campaigns()
        return any(trial.state == "CANCELLED" for trial in ledger.trials(campaign.campaign_id))
