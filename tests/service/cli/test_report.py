"""`spectune report` and `spectune best` on a simulated campaign whose outcome is known."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from spectune.optimizers import Muon
from spectune.service.campaign.model.lifecycle import CampaignEvent
from spectune.service.campaign.specification.specification import Specification, parse
from spectune.service.cli.application import application
from spectune.service.cli.report import report_on
from spectune.service.cli.stored import read_stored
from spectune.service.errors import CampaignNotFoundError, DataDirectoryError, OutputError
from spectune.service.findings.best import python_lines
from spectune.service.ledger import Ledger
from tests.fakes.slots import Simulation, specification
from tests.fakes.unprivileged import forbid_writing, run_unprivileged

POINTS = 18
FINALS = range(2 * POINTS, 2 * POINTS + 16)  # 8 seeds for each of two arms
SECTIONS: dict[str, Any] = {
    "search": {"sampler": "random", "points": POINTS},
    "stopping": {"rule": "successive_halving", "min_steps": 30, "audit": 4},
    "finals": {"keep": 1, "seeds": 8},
}


def _value(trial: int, step: int) -> float:
    """Let the second arm lose every final by 0.2, with noise common to the arms, and one audited stop be wrong."""
    if trial in FINALS:
        arm, index = divmod(trial - FINALS.start, 8)
        return 1.0 + 0.5 * index + 0.2 * arm + 0.01 * (trial * 7 % 5)
    if trial > FINALS[-1] and step == 90:
        return 0.1 if trial % 2 == 0 else 5.0  # an audit: those of the first arm should not have been stopped
    return 1.0 + (trial * 37 % 101) / 101


def _store(data_dir: Path, asked: Specification, campaign_id: str = "c-1") -> None:
    simulation = Simulation(asked, value=_value)
    simulation.run()
    with Ledger.at(data_dir / "ledger.sqlite") as ledger:
        ledger.create_campaign(campaign_id, name="simulated", specification=asked.document())
        attempt = ledger.begin_attempt(campaign_id)
        ledger.move_campaign(campaign_id, CampaignEvent.LAUNCH, reason="test")
        ledger.move_campaign(campaign_id, CampaignEvent.CLAIM, reason="test", attempt=attempt)
        ledger.append(campaign_id, attempt, list(enumerate(simulation.records, start=1)))
        ledger.move_campaign(campaign_id, CampaignEvent.SUCCEED, reason="test", attempt=attempt)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    _store(folder, specification(**SECTIONS))
    _store(folder, specification(search={"sampler": "random", "points": 8}, stopping={"rule": "none"}), "plain-1")
    return folder


def _run(*arguments: str, data_dir: Path) -> Result:
    return CliRunner().invoke(
        application, [*arguments, "--data-dir", str(data_dir)], env={"COLUMNS": "200", "TERM": "dumb"}
    )


def test_the_report_names_the_better_arm_and_why(data_dir: Path) -> None:
    text = _run("report", "c-1", data_dir=data_dir).output
    assert "muon is better than adamw by 0." in text
    assert "over 8 common seeds, Holm-corrected" in text
    assert "muon: 4 of 4 audited stops were wrong (95 %: 40% to 100%); the worst cost" in text
    assert "adamw: 0 of 4 audited stops were wrong (95 %: 0% to 60%)" in text
    assert "muon, adamw: a tuning curve without band: some points were stopped before their end" in text
    assert "one search seed" in text


def test_the_json_is_plain_and_holds_every_number(data_dir: Path) -> None:
    document = json.loads(_run("report", "c-1", "--json", data_dir=data_dir).output)
    muon, adamw = document["arms"]
    assert muon["finals"]["values"] == {str(index + 1): _value(FINALS.start + index, 90) for index in range(8)}
    assert muon["finals"]["num_diverged"] == 0
    assert document["verdicts"][0]["better"] == 0
    assert document["verdicts"][0]["difference"] == pytest.approx(muon["finals"]["mean"] - adamw["finals"]["mean"])
    assert muon["regret"]["num_audited"] == 4
    assert {each["arm"] for each in document["pareto"]} <= {0, 1}


def test_without_finals_there_is_no_verdict_but_a_band(data_dir: Path) -> None:
    report = report_on(read_stored(data_dir, "plain-1"))
    assert list(report.verdicts) == []
    assert any(note.startswith("no verdicts: the best of a search is its luckiest too") for note in report.notes)
    assert [arm.curve.reason for arm in report.arms] == ["", ""]
    assert report.arms[0].curve.low is not None


def test_a_page_of_figures_needs_no_net(data_dir: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = _run("report", "c-1", "--html", str(page), data_dir=data_dir)
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    for title in ("Finals: every seed", "What so many points would reach", "Sensitivity to the learning rate"):
        assert title in text
    assert "<script src=" not in text
    assert "muon is better than adamw" in text
    shown = text.partition("</script>")[2]
    for told in ("Best of the search", "<td>8 of 8</td>", "<td>100% (40% to 100%)</td>", "momentum = 0.9"):
        assert told in shown


def test_a_page_that_cannot_be_written_is_refused(data_dir: Path) -> None:
    result = _run("report", "c-1", "--html", "/nowhere/report.html", data_dir=data_dir)
    assert isinstance(result.exception, OutputError)
    assert str(result.exception).endswith("got '/nowhere/report.html'")


@pytest.mark.slow
def test_report_best_and_bundle_need_no_permission_to_write(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="spectune-report-"))
    _store(folder, specification(search={"sampler": "random", "points": 8}, stopping={"rule": "none"}), "plain-1")
    forbid_writing(folder)
    _run("bundle", "plain-1", str(tmp_path / "b.zip"), data_dir=folder)  # loads every module
    _run("report", "plain-1", data_dir=folder)

    def read() -> None:
        for verb in (["report"], ["best"], ["bundle", "/dev/null"]):
            result = _run(verb[0], "plain-1", *verb[1:], data_dir=folder)
            assert result.exit_code == 0, (verb, result.output, result.exception)

    before = sorted(path.name for path in folder.iterdir())
    assert run_unprivileged(read) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == before
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["report"], ["report", "--json"], ["best"], ["report", "--html", "/dev/full"]])
def test_a_full_disk_is_one_sentence(verb: list[str], data_dir: Path) -> None:
    command = [sys.executable, "-c", "from spectune.service.cli import main; main()", verb[0], "plain-1", *verb[1:]]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*command, "--data-dir", str(data_dir)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode in (1, 2)
    assert "No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize("verb", ["report", "best"])
def test_a_campaign_that_is_not_there_is_told_with_the_nearest(verb: str, data_dir: Path, tmp_path: Path) -> None:
    result = _run(verb, "plain-2", data_dir=data_dir)
    assert isinstance(result.exception, CampaignNotFoundError)
    assert str(result.exception) == "no such campaign; did you mean 'plain-1'?: got 'plain-2'"
    nothing = _run(verb, "c-1", data_dir=tmp_path)
    assert isinstance(nothing.exception, DataDirectoryError)
    assert list(tmp_path.iterdir()) == []


def test_the_best_is_yaml_that_a_campaign_takes_and_says_how_it_was_found(data_dir: Path) -> None:
    text = _run("best", "c-1", data_dir=data_dir).output
    document = yaml.safe_load(text)
    assert document.pop("optimizer") == "muon"
    assert "mean of finals ± 95 % interval, 8 seeds" in text.splitlines()[0]
    (winner,) = [each for each in report_on(read_stored(data_dir, "c-1")).arms if each.name == "muon"]
    assert winner.best is not None
    assert document == winner.best.config
    other = yaml.safe_load(_run("best", "c-1", "--arm", "adamw", data_dir=data_dir).output)
    assert other["optimizer"] == "adamw"
    again = specification(arms=[{"optimizer": "muon", "space": {}, "fixed": document}]).document()
    assert parse(again).arms[0].fixed == document


def test_an_arm_that_is_not_there_is_told(data_dir: Path) -> None:
    result = _run("best", "c-1", "--arm", "mun", data_dir=data_dir)
    assert str(result.exception) == "no such arm; the campaign has muon, adamw: got 'mun'"


@pytest.mark.parametrize(
    ("optimizer", "config"),
    [
        ("muon", {"lr": 0.02, "momentum": 0.9, "adamw_lr_ratio": 0.1, "adjust_lr_fn": "original"}),
        ("polargrad", {"lr": 1.0, "scale": "nuclear_mean", "adamw_betas": [0.9, 0.95]}),
        ("root", {"lr": 0.01, "percentile": 0.9}),
        ("spectral_descent", {"lr": 0.01}),
        ("adamw", {"lr": 0.01, "betas": [0.9, 0.99]}),
        ("sgd", {"lr": 0.01}),
    ],
)
def test_the_python_runs_and_sets_what_was_found(optimizer: str, config: dict[str, Any]) -> None:
    names: dict[str, Any] = {
        "model": torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 4), torch.nn.Linear(4, 2)),
        "matrices": [torch.nn.Parameter(torch.randn(4, 6))],
    }
    built = []
    for line in python_lines(optimizer, config):
        exec(line, names)
        built += [names["optimizer"]] if "optimizer = " in line else []
    for each in built:
        assert each.param_groups[0]["lr"] == config["lr"]
    assert isinstance(built[-1], Muon) == (optimizer == "muon")
    assert len(built) == (1 if optimizer in ("adamw", "sgd") else 2)


def test_the_version_is_the_packages() -> None:
    result = CliRunner().invoke(application, ["--version"])
    assert (result.exit_code, result.output) == (0, "spectune 0.1.0\n")
