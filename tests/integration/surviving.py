"""Campaigns that are disturbed at a seeded moment, and what must hold of them afterwards.

A point is (fault, seed). The seed draws the sampler and how many observations the ledger holds when the fault strikes,
so that a point means the same on a fast machine and on a slow one. Afterwards the campaign is held against one that
nobody disturbed: its points, its last bits and its report.
"""

from __future__ import annotations

import copy
import math
import os
import random
import resource
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from spectune.service.campaign.analysis.report import make_report
from spectune.service.campaign.model.records import Observation, TrialRecord
from spectune.service.campaign.specification.catalog import installed_catalog
from spectune.service.campaign.specification.specification import parse
from spectune.service.ledger import Ledger
from tests.integration.conftest import DOCUMENT, Outcome, Run

INJECTED = Path(__file__).parent / "injected"
SAMPLERS = ("random", "grid", "sobol")
EVERY_STEPS = 50
STEPS = 900
NUM_POINTS = 4
TIMED = {"step_time_seconds", "throughput", "optimizer_share"}
VANISH_SECONDS = 10.0
FULL_SECONDS = 20.0
_TIMED_FINDINGS = ("seconds", "sequence", "campaign_id", "pareto", "at", "time")


def document(sampler: str) -> dict[str, Any]:
    """Make a campaign of two arms whose trials train side by side, and of which a rung stops some."""
    made = copy.deepcopy(DOCUMENT)
    made["task"] |= {"steps": STEPS}
    made["objective"] |= {"every_steps": EVERY_STEPS}
    made["search"] = {"sampler": sampler, "points": NUM_POINTS, "search_seed": 3, "deterministic": True}
    made["stopping"] = {"rule": "successive_halving", "min_steps": 300, "reduction_factor": 2}
    if sampler == "grid":
        for arm in made["arms"]:
            arm["space"] = {"lr": {"choice": [0.01, 0.03, 0.1, 0.3]}}
    return made


def moody(sampler: str) -> dict[str, Any]:
    """Make a campaign of a task that measures wrongly when told to; no rung lets a trial decide of another."""
    made = document(sampler)
    made["task"] = {"name": "moody_task:Moody", "size": 8, "steps": STEPS}
    made["stopping"] = {"rule": "none"}
    return made


def injected(folder: Path) -> dict[str, str]:
    """Make the environment in which what a file in the folder names happens once."""
    path = [str(INJECTED), os.environ.get("PYTHONPATH", "")]
    return {"INJECTED": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, path))}


@dataclass(frozen=True)
class Moment:
    """When a fault strikes, and in which campaign.

    Attributes:
        sampler: Of which undisturbed campaign this one is the twin.
        num_observations: How many the ledger holds at least.
        pick: A number in [0, 1) for whatever else a fault chooses.
    """

    sampler: str
    num_observations: int
    pick: float

    @classmethod
    def drawn(cls, fault: str, seed: int) -> Moment:
        """Draw the moment of a point."""
        draw = random.Random(f"{fault}/{seed}")
        return cls(SAMPLERS[seed % len(SAMPLERS)], draw.randint(1, 60), draw.random())


def fill_disk(driver: psutil.Process, workers: list[psutil.Process], spool: Path, *, spare_bytes: int) -> None:
    """Let no file grow until the driver's spool has taken so many bytes more: its last record is torn.

    The workers, which die with their driver, may write nothing any more: each checkpoint is torn.
    """
    limit = spool.stat().st_size + spare_bytes
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.rlimit(psutil.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    with suppress(psutil.NoSuchProcess):  # the campaign may end before the disk is full
        driver.rlimit(psutil.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        deadline = time.monotonic() + FULL_SECONDS
        while spool.stat().st_size < limit and time.monotonic() < deadline and driver.is_running():
            time.sleep(0.05)
        time.sleep(1.0)
        driver.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def spool_of(run: Run) -> Path:
    """Find the spool of the first attempt."""
    (campaign,) = run.data.root.joinpath("campaigns").iterdir()
    return run.data.spool(campaign.name, 1)


@dataclass(frozen=True)
class Story:
    """What the ledger holds of one campaign, without what depends on the clock."""

    states: dict[int, tuple[dict[str, Any], str, int]]
    metrics: dict[tuple[int, int], dict[str, str]]
    report: Any

    @classmethod
    def read(cls, outcome: Outcome) -> Story:
        """Read the campaign that a command ran, and check what holds of any campaign at rest."""
        with Ledger.at(outcome.data.ledger) as ledger:
            record = ledger.campaign(outcome.document["campaign_id"])
            trials = ledger.trials(record.campaign_id)
            observations = ledger.observations(record.campaign_id)
        assert_sound(trials, observations)
        report = make_report(
            parse(record.specification), record, trials, observations, catalog=installed_catalog()
        ).document()
        return cls(
            {each.number: (dict(each.config), str(each.state), each.last_step) for each in trials},
            {(each.trial, each.step): _bits(each) for each in observations},
            _untimed(report),
        )


def assert_sound(trials: list[TrialRecord], observations: list[Observation]) -> None:
    """Nothing twice, no gap, every state terminal, every second charged to a trial that trained."""
    seen = [(each.trial, each.step) for each in observations]
    assert len(set(seen)) == len(seen), "a step stands twice"
    configs = [(each.arm, each.seed_index, str(each.config)) for each in trials]
    assert len(set(configs)) == len(configs), "a configuration was given twice"
    for trial in trials:
        assert trial.state.is_terminal, f"trial {trial.number} is {trial.state}"
        steps = [step for number, step in seen if number == trial.number]
        assert steps == list(range(EVERY_STEPS, trial.last_step + 1, EVERY_STEPS)), f"trial {trial.number}: {steps}"
        assert math.isfinite(trial.device_seconds)
        assert (trial.device_seconds > 0.0) or not steps, f"trial {trial.number} trained and was charged nothing"
        assert trial.state != "COMPLETED" or trial.last_step == STEPS


def assert_gone(processes: list[psutil.Process]) -> None:
    """Nobody of a campaign is left, a moment after its end."""
    _, alive = psutil.wait_procs(processes, timeout=VANISH_SECONDS)
    assert not alive, f"left behind: {alive}"


def strike(run: Run, fault: str, moment: Moment) -> None:
    """Let a fault happen to a campaign that runs."""
    driver = run.wait_for(Run.driver)
    match fault:
        case "driver killed":
            driver.kill()
        case "worker killed":
            workers = run.wait_for(Run.workers)
            workers[int(moment.pick * len(workers))].kill()
        case "owner killed":
            run.process.kill()
        case "disk full":
            fill_disk(driver, run.workers(), spool_of(run), spare_bytes=int(moment.pick * 200))
        case "SIGTERM":
            os.kill(run.process.pid, signal.SIGTERM)
        case "SIGINT":
            os.kill(run.process.pid, signal.SIGINT)
        case "callback raises" | "forgets" | "is nan":
            run.data.root.parent.joinpath(fault.replace(" ", "_")).touch()
        case _:
            raise AssertionError(f"no such fault: got {fault!r}")


def _bits(observation: Observation) -> dict[str, str]:
    return {name: repr(value) for name, value in observation.metrics.items() if name not in TIMED}


def _untimed(found: Any) -> Any:
    """Leave out of a report what no two runs share."""
    if isinstance(found, dict):
        return {
            name: _untimed(value)
            for name, value in found.items()
            if not any(part in str(name) for part in _TIMED_FINDINGS) and name not in TIMED
        }
    return [_untimed(each) for each in found] if isinstance(found, list) else found
