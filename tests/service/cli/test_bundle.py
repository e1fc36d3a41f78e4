"""`spectune bundle` and `spectune replay`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from spectune.service.cli.application import application
from spectune.service.cli.replay import undecided_pairs
from spectune.service.driver.replay import Replayed
from spectune.service.errors import BundleError, CampaignNotFoundError
from spectune.service.findings.bundle import Bundle, BundledTrial, read_bundle

TRAIN = Path(__file__).parents[2] / "fakes" / "trained_campaign.py"


def spectune(*arguments: str) -> Result:
    return CliRunner().invoke(application, [*arguments])


@pytest.fixture(scope="module", params=["alone", "fused"])
def data_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with four trials that a process trained as a worker does."""
    folder = tmp_path_factory.mktemp(request.param)
    subprocess.run([sys.executable, str(TRAIN), str(folder), request.param], check=True)
    return folder


@pytest.fixture
def bundle(data_dir: Path, tmp_path: Path) -> Path:
    file = tmp_path / "c.zip"
    written = spectune("bundle", "c", str(file), "--data-dir", str(data_dir))
    assert written.exit_code == 0, written.output
    return file


def change_learning_rates(file: Path, monkeypatch: pytest.MonkeyPatch, *, by: float) -> None:
    """Change what the process that trains reads of muon's trials; what they are compared with stays."""
    content = file.read_bytes()
    found = read_bundle(content)
    trials = [
        replace(trial, config={"lr": trial.config["lr"] * by}) if trial.arm == "muon" else trial
        for trial in found.trials
    ]
    monkeypatch.setattr(
        "spectune.service.driver.replay._train_elsewhere", lambda *_, **options: train_here(found, trials)
    )


def train_here(found: Bundle, trials: list[BundledTrial]) -> Any:
    from spectune.service.driver.replay import _train

    return _train(found, [trial for trial in trials if trial.point == 0], False)


@pytest.mark.slow
def test_a_replay_is_the_workers_path_to_the_last_bit(bundle: Path) -> None:
    best = spectune("replay", str(bundle), "--tolerance", "0")
    assert best.exit_code == 0, best.output
    assert "2 of 2 trials are identical to the last bit" in best.output
    everything = spectune("replay", str(bundle), "--all", "--tolerance", "0", "--json")
    document = json.loads(everything.stdout.splitlines()[-1])
    assert (document["num_trials"], document["num_identical"], document["num_within"]) == (4, 4, 4)
    for trial in document["trials"]:
        assert trial["was"] == trial["is"]
        assert [trial["execution"]["instructions"]] == [each["instructions"] for each in trial["executions"]]


def test_a_trial_that_comes_out_elsewhere_fails_the_command(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = read_bundle(bundle.read_bytes())
    chosen = [trial for trial in content.trials if trial.point == 0]
    monkeypatch.setattr("spectune.service.cli.replay.best_trials", lambda found: chosen)
    change_learning_rates(bundle, monkeypatch, by=3.0)
    result = spectune("replay", str(bundle))
    assert result.exit_code == 1
    assert "differs" in result.output
    assert "1 within 0.01" in result.output


def test_differences_smaller_than_the_deviation_are_named() -> None:
    def trial(arm: str, expected: float, value: float) -> Replayed:
        bundled = BundledTrial(0, arm, "final", 0, 0, {}, "COMPLETED", expected, {1: {"loss": expected}})
        return Replayed(bundled, value, expected, abs(value - expected) / expected, 0.0, {})

    arms = [SimpleNamespace(name=name) for name in "abc"]
    found: Any = SimpleNamespace(specification=SimpleNamespace(arms=arms))
    replayed = [trial("a", 1.0, 1.0), trial("b", 1.1, 1.25), trial("c", 2.0, 2.0)]
    assert undecided_pairs(found, replayed) == [("a", "b")]
    assert undecided_pairs(found, [trial("a", 1.0, 1.0), trial("c", 2.0, 2.0)]) == []


def test_what_cannot_be_bundled_or_read_is_named(data_dir: Path, tmp_path: Path) -> None:
    missing = spectune("bundle", "d", str(tmp_path / "d.zip"), "--data-dir", str(data_dir))
    assert isinstance(missing.exception, CampaignNotFoundError)
    nowhere = spectune("replay", str(tmp_path / "none.zip"))
    assert isinstance(nowhere.exception, BundleError)
    assert str(nowhere.exception).endswith("none.zip")
