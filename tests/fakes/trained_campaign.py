"""Trains a small campaign as workers do, in a process of its own, into a data directory: `FOLDER alone|fused`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from spectune.service.campaign.model.lifecycle import CampaignEvent, TrialState
from spectune.service.campaign.specification.specification import parse
from spectune.service.data_directory import DataDirectory
from spectune.service.driver.assignments import AssignmentMaker
from spectune.service.ledger import Ledger, entries
from spectune.service.ledger.spool import Record
from spectune.trainers.engines.cohorts import cohort_for
from spectune.trainers.worker.arithmetic import Arithmetic, execution_here
from spectune.trainers.worker.slot import prepare_process

DOCUMENT: dict[str, Any] = {
    "name": "trained",
    "task": {"name": "matrix_completion", "rows": 12, "columns": 10, "rank": 2, "steps": 20},
    "objective": {"metric": "validation_loss", "mode": "minimize", "every_steps": 10},
    "arms": [{"optimizer": "muon"}, {"optimizer": "adamw"}],
    "search": {"sampler": "random", "points": 2},
}


def train_arm(arm: int, maker: AssignmentMaker, *, is_alone: bool) -> list[Record]:
    """Train the two trials of an arm together, or one after the other."""
    execution = execution_here(threads=1).document() | {"alone": is_alone}
    records: list[Record] = []
    settings = {}
    for number in (arm, arm + 2):
        config = {"lr": 0.01 * (1 + number)}
        place: dict[str, Any] = {"arm": arm, "point": number // 2, "seed_index": 0}
        ask = {"coordinates": {"lr": number / 4}}
        records.append(entries.trial_created(trial=number, config=config, ask=ask, at=1, **place))
        move: dict[str, Any] = {"state": TrialState.RUNNING, "reason": "assigned", "execution": execution}
        records.append(entries.trial_moved(trial=number, at=2, **move))
        settings[number] = maker.setting(arm=arm, config=config, seed_index=0)
    cohort = cohort_for(settings[arm], is_alone=is_alone)
    for number, setting in settings.items():
        cohort.admit(number, setting)
    for step in (10, 20):
        cohort.advance(dict.fromkeys(settings, step))
        for number, metrics in cohort.report(list(settings)).items():
            assert not isinstance(metrics, str), metrics
            told: dict[str, Any] = {"metrics": metrics, "objective": metrics["validation_loss"], "device_seconds": 0.1}
            records.append(entries.observation(trial=number, step=step, produced_at=step, **told))
    end: dict[str, Any] = {"state": TrialState.COMPLETED, "reason": "end_of_schedule", "at": 9}
    return records + [entries.trial_moved(trial=number, **end) for number in settings]


def main() -> None:
    """Train the campaign."""
    folder, how = sys.argv[1:]
    prepare_process(arithmetic=Arithmetic.FASTEST, cpus=1, gpus=0.0)
    specification = parse(DOCUMENT)
    maker = AssignmentMaker(specification)
    records = [record for arm in (0, 1) for record in train_arm(arm, maker, is_alone=how == "alone")]
    with Ledger.at(DataDirectory(Path(folder)).ledger) as ledger:
        ledger.create_campaign("c", name="trained", specification=specification.document())
        attempt = ledger.begin_attempt("c")
        ledger.move_campaign("c", CampaignEvent.LAUNCH, reason="launching")
        ledger.move_campaign("c", CampaignEvent.CLAIM, reason="driver_started")
        ledger.append("c", attempt, list(enumerate(records, start=1)))
        ledger.move_campaign("c", CampaignEvent.SUCCEED, reason="all_trials_ended")


if __name__ == "__main__":
    main()
