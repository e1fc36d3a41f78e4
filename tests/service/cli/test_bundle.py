"""`spectune bundle` and `spectune replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.campaign.lifecycle import CampaignEvent, TrialState
from service.campaign.specification import parse
from service.cli.main import application
from service.data_directory import DataDirectory
from service.driver.assignments import AssignmentMaker
from service.errors import BundleError, CampaignNotFoundError
from service.ledger import Ledger, entries
from trainers.solo import SoloTrial

DOCUMENT: dict[str, Any] = {
    "name": "trained",
    "task": {"name": "matrix_completion", "rows": 12, "columns": 10, "rank": 2, "steps": 20},
    "objective": {"metric": "validation_loss", "mode": "minimize", "every_steps": 10},
    "arms": [{"optimizer": "muon"}, {"optimizer": "adamw"}],
    "search": {"sampler": "random", "points": 2},
}


def spectune(*arguments: str) -> Result:
    return CliRunner().invoke(application, [*arguments])


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    """A ledger with four trials that were really trained."""
    data, specification = DataDirectory(tmp_path), parse(DOCUMENT)
    maker, records = AssignmentMaker(specification), []
    for number in range(4):
        config = {"lr": 0.01 * (1 + number)}
        place: dict[str, Any] = {"arm": number % 2, "point": number // 2, "seed_index": 0}
        ask = {"coordinates": {"lr": number / 4}}
        records.append(entries.trial_created(trial=number, config=config, ask=ask, at=1, **place))
        trial = SoloTrial(maker.setting(arm=number % 2, config=config, seed_index=0))
        for step in (10, 20):
            trial.advance(step)
            metrics = trial.report()
            told: dict[str, Any] = {"metrics": metrics, "objective": metrics["validation_loss"], "device_seconds": 0.1}
            records.append(entries.observation(trial=number, step=step, produced_at=step, **told))
        records.append(entries.trial_moved(trial=number, state=TrialState.COMPLETED, reason="end_of_schedule", at=9))
    with Ledger.at(data.ledger) as ledger:
        ledger.create_campaign("c", name="trained", specification=specification.document())
        attempt = ledger.begin_attempt("c")
        ledger.move_campaign("c", CampaignEvent.LAUNCH, reason="launching")
        ledger.move_campaign("c", CampaignEvent.CLAIM, reason="driver_started")
        ledger.append("c", attempt, list(enumerate(records, start=1)))
        ledger.move_campaign("c", CampaignEvent.SUCCEED, reason="all_trials_ended")
    return data


def test_a_bundle_replays_to_the_last_bit_alone_and_says_so(data: DataDirectory, tmp_path: Path) -> None:
    file = tmp_path / "c.zip"
    written = spectune("bundle", "c", str(file), "--data-dir", str(data.root))
    assert written.exit_code == 0, written.output
    best = spectune("replay", str(file), "--tolerance", "0")
    assert best.exit_code == 0, best.output
    assert "2 of 2 trials came out within 0 of what they were" in best.output
    everything = spectune("replay", str(file), "--all", "--tolerance", "0")
    assert "4 of 4 trials" in everything.output


def test_a_trial_that_comes_out_elsewhere_is_shown_and_fails_the_command(
    data: DataDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.zip"
    spectune("bundle", "c", str(file), "--data-dir", str(data.root))
    setting = AssignmentMaker.setting

    def other_seed(self: AssignmentMaker, *, arm: int, config: Any, seed_index: int) -> Any:
        return setting(self, arm=arm, config=config, seed_index=seed_index + arm)

    monkeypatch.setattr(AssignmentMaker, "setting", other_seed)
    result = spectune("replay", str(file))
    assert result.exit_code == 1
    assert "1 of 2 trials came out within 0.01" in result.output
    assert "differs" in result.output


def test_what_cannot_be_bundled_or_read_is_named(data: DataDirectory, tmp_path: Path) -> None:
    missing = spectune("bundle", "d", str(tmp_path / "d.zip"), "--data-dir", str(data.root))
    assert isinstance(missing.exception, CampaignNotFoundError)
    nowhere = spectune("replay", str(tmp_path / "none.zip"))
    assert isinstance(nowhere.exception, BundleError)
    assert str(nowhere.exception).endswith("none.zip")
