"""Bad input: one clear message that names the place and the value, exit status 2, nothing created."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from spectune.service.cli import main
from tests.integration.conftest import DOCUMENT

Change = Callable[[dict[str, Any]], Any]


def refuse(
    document: object, folder: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    """Run the command on a document and return what it said on standard error, on one line."""
    campaign = folder / "campaign.yaml"
    campaign.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["spectune", "run", str(campaign), "--data-dir", str(data_dir)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return " ".join(captured.err.split())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(optimiser="muon"), ["/optimiser", "unknown key"]),
        (lambda d: d["task"].update(wdith=64), ["/task/wdith", "64"]),
        (lambda d: d["arms"][0].update(optimizer="mun"), ["/arms/0/optimizer", "muon", "got 'mun'"]),
        (
            lambda d: d["arms"][0].update(space={"lr": {"log_uniform": [1.0, 0.1]}}),
            ["/arms/0/space/lr/log_uniform", "[1.0, 0.1]"],
        ),
        (lambda d: d["arms"][0].update(space={"momentun": {"uniform": [0.1, 0.9]}}), ["/arms/0/space/momentun"]),
        (lambda d: d.update(tags={"kind": "trial"}), ["/tags/kind", "the service's own"]),
        (lambda d: d.update(tags={"store": "s3://me:hunter2@host/x"}), ["/tags/store", "a password or an API key"]),
        (lambda d: d.update(tags={"key": "spk_0a1b_Zz9"}), ["/tags/key", "a password or an API key"]),
        (lambda d: d.update(tags={"owner!": "me"}), ["/tags/owner!", "letters, digits"]),
        (lambda d: d.update(tags={"mlflow.runName": "x"}), ["/tags/mlflow.runName", "the service's own"]),
        (lambda d: d["search"].update(points=10**9), ["/search/points", "100000", "1000000000"]),
        (lambda d: d["resources"].update(workers=10**6), ["/resources/workers", "1024"]),
        (lambda d: d["resources"].update(gpus=1.5), ["/resources/gpus", "less than or equal to 1", "got 1.5"]),
        (lambda d: d["resources"].update(gpus=-0.5), ["/resources/gpus", "greater than or equal to 0", "got -0.5"]),
        (lambda d: d["resources"].update(gpus=0.25), ["/resources/gpus", "this machine has 0 for all", "got 0.25"]),
        (lambda d: (d["task"].update(steps=10**6), d["objective"].update(every_steps=1)), ["/objective/every_steps"]),
        (lambda d: d["arms"][0]["fixed"].update(momentum=10**400), ["/arms/0/fixed/momentum", "1329 bits"]),
        (lambda d: d.update(task={"name": "language_model", "steps": 60, "corpus": "x" * 5000}), ["/task/corpus"]),
        (lambda d: d["objective"].update(metric="accuracy"), ["/objective/metric", "got 'accuracy'"]),
        (
            lambda d: d.update(task={"name": "language_model", "steps": 60, "corpus": "/no/such/corpus"}),
            ["/task/corpus", "/no/such/corpus"],
        ),
    ],
)
def test_a_mistake_in_the_campaign_is_named_with_its_place_and_value(
    change: Change,
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    message = refuse(document, tmp_path, tmp_path / "data", capsys, monkeypatch)
    assert all(word in message for word in words), message
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nname: b\n", "the key 'name' stands twice, line 2"),
        ("name: [", "is not YAML (it makes no sense beyond line 1, column 8: is a quote, a bracket"),
        ("name: a\n\ttask: b\n", "it makes no sense beyond line 2, column 1"),
        ("", "the document"),
        ("- 1\n", "the document"),
        ("name: a\x00b", "it holds a character that no text has, at position 7"),
        ("name: !!int 2024-13-45\n", "a value is not what it says it is, line 1"),
        ("a: &a [*a]\n", "aliases are not taken, line 1"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", "aliases are not taken, line 3"),
        ("a: " + "[" * 3000 + "]" * 3000, "it is nested too deeply"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 32 levels deep"),
        ("a: !!float abc\n", "a value is not what it says it is, line 1"),
        ("a: !!bool maybe\n", "a value is not what it says it is, line 1"),
        ("a: !!int ''\n", "a value is not what it says it is, line 1"),
        ("a: 1" + "0" * 400, "integers must lie within"),
        ("a: 1" + "0" * 5000, "a value is not what it says it is, line 1"),
        ("? 1" + "0" * 5000 + "\n: a", "a value is not what it says it is, line 1"),
        ("x: 1\na: !!python/object:os.system {}\n", "a value of this kind is not taken, line 2"),
        ("? [a]\n: b\n", "is not YAML"),
    ],
)
def test_a_file_that_holds_no_campaign_is_refused(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert words in refuse(text, tmp_path, tmp_path / "data", capsys, monkeypatch)
    assert not (tmp_path / "data").exists()


def test_a_campaign_file_that_does_not_exist_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["spectune", "run", str(tmp_path / "missing.yaml")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "missing.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file/data", "file", "x" * 300])
def test_a_data_directory_that_cannot_be_written_is_named_and_nothing_is_created(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    message = refuse(DOCUMENT, tmp_path, tmp_path / place, capsys, monkeypatch)
    assert "the data directory cannot be written" in message
    assert str(tmp_path / place) in message
    (tmp_path / "campaign.yaml").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_short_floats_are_numbers_in_a_campaign_file(tmp_path: Path) -> None:
    from spectune.service.campaign_file import read_document

    (tmp_path / "c.yaml").write_text("a: 1e-3\nb: 3E+2\nc: 1.5e-4\nd: e3\n", encoding="utf-8")
    assert read_document(tmp_path / "c.yaml") == {"a": 1e-3, "b": 300.0, "c": 1.5e-4, "d": "e3"}
