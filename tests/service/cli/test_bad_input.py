"""Bad input: one clear message that names the place and the value, exit status 2, nothing created."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli import main
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
        ("name: [", "is not YAML"),
        ("", "the document"),
        ("- 1\n", "the document"),
        ("name: a\x00b", "is not YAML"),
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
    from service.cli.document import read_document

    (tmp_path / "c.yaml").write_text("a: 1e-3\nb: 3E+2\nc: 1.5e-4\nd: e3\n", encoding="utf-8")
    assert read_document(tmp_path / "c.yaml") == {"a": 1e-3, "b": 300.0, "c": 1.5e-4, "d": "e3"}
