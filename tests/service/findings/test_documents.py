"""What a campaign leaves to be read without us: each file says what it should, and none takes another along."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from spectune.service.campaign.specification.catalog import installed_catalog
from spectune.service.campaign.specification.specification import parse
from spectune.service.findings.documents import campaign_documents, environment_lock, write_each
from spectune.service.ledger import Ledger
from tests.fakes.campaigns import DOCUMENT, enter_campaign, value

NAMES = ["best.yaml", "campaign.yaml", "description.md", "environment.txt", "report.html", "report.json"]


def written(folder: Path, **changes: object) -> dict[str, str]:
    with Ledger.at(folder / "ledger.sqlite") as ledger:
        enter_campaign(ledger, "c-1", num_trials=12, **changes)
        record, trials, observations = ledger.campaign("c-1"), ledger.trials("c-1"), ledger.observations("c-1")
    return campaign_documents(record, trials, observations, catalog=installed_catalog())


def test_the_specification_asks_for_the_same_campaign_again(tmp_path: Path) -> None:
    document = written(tmp_path)["campaign.yaml"]
    asked = parse({**DOCUMENT, "search": {**DOCUMENT["search"], "points": 6}})
    assert parse(yaml.safe_load(document)) == asked


def test_the_best_configuration_the_report_and_the_environment_are_there(tmp_path: Path) -> None:
    found = written(tmp_path)
    assert sorted(found) == NAMES
    assert yaml.safe_load(found["best.yaml"])["lr"] == pytest.approx(0.001)  # trial 0 has the lowest loss
    assert "build_optimizer(model, 'muon'" in found["best.yaml"]
    assert yaml.safe_load(found["best.yaml"])["compute_dtype"] == "float32"
    assert "decay_vectors=True, compute_dtype='float32'" in found["best.yaml"]
    assert json.loads(found["report.json"])["campaign_id"] == "c-1"
    assert "<h1>c-1: validation_loss at step 200</h1>" in found["report.html"]
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"?http", found["report.html"])


def test_the_description_says_what_was_asked_how_each_arm_did_and_which_point_is_best(tmp_path: Path) -> None:
    arms = [{"name": "a_b", "optimizer": "muon"}, {"optimizer": "adamw"}]
    first, _, best, _, how, _, *table = written(tmp_path, arms=arms)["description.md"].strip().split("\n")
    assert first == "Spectune: minimize `validation_loss` at step 200. SUCCEEDED: 12 completed of 12."
    assert table[0].startswith("| arm | trials | completed | device seconds | best search value |")
    assert table[2].startswith(f"| a_b | 6 | 6 | 6 | {value(0, 200, 12):.4g} |")  # the better arm comes first
    assert table[3].startswith("| adamw | 6 | 6 |")
    assert best == "Best: **a_b**, point 0: lr = 0.001, weight_decay = 0"
    assert how == (
        f"validation_loss {value(0, 200, 12):.4g} (best search value: one seed, so small differences may be chance)."
    )


def test_the_environment_names_every_package_with_its_version() -> None:
    lines = environment_lock().splitlines()
    assert lines[0].startswith("# Python 3.")
    assert f"ray=={metadata.version('ray')}" in lines
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==\S+", line) for line in lines[1:])


def test_with_two_objectives_no_configuration_is_the_best(tmp_path: Path) -> None:
    two = [{"metric": "validation_loss", "mode": "minimize"}, {"metric": "loss", "mode": "minimize"}]
    search = {"sampler": "nsga2", "points": 6}
    assert sorted(written(tmp_path, objective=two, search=search)) == [name for name in NAMES if name != "best.yaml"]


def test_arms_that_are_not_comparable_have_no_best_and_the_description_says_so_first(tmp_path: Path) -> None:
    with Ledger.at(tmp_path / "ledger.sqlite") as ledger:
        enter_campaign(ledger, "c-1", num_trials=12)
        record, trials = ledger.campaign("c-1"), [each for each in ledger.trials("c-1") if each.arm == 0]
        numbers = {each.number for each in trials}
        observations = [each for each in ledger.observations("c-1") if each.trial in numbers]
    found = campaign_documents(record, trials, observations, catalog=installed_catalog())
    assert sorted(found) == [name for name in NAMES if name != "best.yaml"]
    _, _, said, _, *_ = found["description.md"].split("\n")
    assert said.endswith(": never tried; arms are not comparable**")
    assert "Best:" not in found["description.md"]


def test_a_document_that_cannot_be_written_takes_no_other_along(caplog: pytest.LogCaptureFixture) -> None:
    writers = {"report.html": lambda: str(1 // 0), "best.yaml": lambda: "lr: 1"}
    assert write_each("c-1", writers) == {"best.yaml": "lr: 1"}
    assert "campaign c-1: report.html cannot be written" in caplog.text
