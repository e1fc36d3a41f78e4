"""`spectune corpus build`, and campaigns that say which corpus they mean."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spectune.service.campaign.specification.specification import parse
from spectune.service.cli.application import application
from spectune.service.cli.run import _with_absolute_folders
from spectune.service.errors import SpecificationError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number}.txt").write_text(f"text {number} " * 40)
    return folder


def build(*arguments: str) -> Any:
    return CliRunner().invoke(application, ["corpus", "build", *arguments])


def campaign(**task: Any) -> dict[str, Any]:
    return {
        "name": "c",
        "task": {"name": "language_model", "steps": 10, "width": 16, "heads": 2, "context": 16, **task},
        "objective": {"metric": "validation_loss", "mode": "minimize"},
        "arms": [{"optimizer": "muon"}],
        "search": {"sampler": "random", "points": 2},
    }


def test_a_folder_becomes_a_corpus_that_a_campaign_takes(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    result = build("--input", str(source), "--out", str(out), "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["documents"], told["vocabulary"]) == (60, 257)
    task = parse(campaign(corpus=str(out))).document()["task"]
    assert len(task["corpus_fingerprint"]) == 32
    again = build("--input", str(source), "--out", str(out))
    assert again.exit_code == 2
    assert "exists already" in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tokenizer", "nowhere.json"), "cannot be read"),
        (("--validation-share", "0"), "above 0 and below 1"),
        (("--shard-tokens", "3"), "shard-tokens"),
    ],
)
def test_what_cannot_be_built_is_said_and_exits_2(
    arguments: tuple[str, ...], message: str, source: Path, tmp_path: Path
) -> None:
    result = build("--input", str(source), "--out", str(tmp_path / "out"), *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_a_folder_without_text_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = build("--input", str(tmp_path / "empty"), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "needs two files of text" in " ".join(result.output.replace("│", " ").split())


def test_the_canonical_document_pins_its_corpus_and_is_refused_when_that_has_changed(source: Path) -> None:
    document = parse(campaign(corpus=str(source))).document()
    assert parse(document).document() == document
    (source / "0.txt").write_text("something else")
    with pytest.raises(SpecificationError) as caught:
        parse({**document, "task": {**document["task"], "corpus": str(source / ".." / "texts")}})
    assert [problem.pointer for problem in caught.value.problems] == ["/task/corpus"]
    assert document["task"]["corpus_fingerprint"] in caught.value.problems[0].message


@pytest.mark.parametrize(
    ("task", "pointer"),
    [
        ({"corpus": ""}, "/task/corpus"),
        ({"width": 10**9}, "/task/width"),
        ({"preset": "gpt3"}, "/task/preset"),
        ({"name": "spectune.service.app:Thing"}, "/task/name"),
        ({"name": "langage_model"}, "/task/name"),
    ],
)
def test_a_hostile_task_is_refused_at_its_place(task: dict[str, Any], pointer: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        parse(campaign(**task))
    assert pointer in [problem.pointer for problem in caught.value.problems]


def test_an_empty_folder_stays_empty_and_others_become_absolute() -> None:
    task = _with_absolute_folders({"task": {"corpus": "", "images": "here", "width": 3}})["task"]
    assert task == {"corpus": "", "images": str(Path.cwd() / "here"), "width": 3}


def test_a_corpus_is_made_where_a_link_points(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    result = build("--input", str(source), "--out", str(tmp_path / "link"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "manifest.json").is_file()


@pytest.mark.parametrize("kind", ["pipe", "file", "link to a folder", "loop"])
def test_a_corpus_replaces_nothing_that_stands_in_its_place(kind: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    match kind:
        case "pipe":
            os.mkfifo(out)
        case "file":
            out.touch()
        case "loop":
            out.symlink_to(out)
        case _:
            out.symlink_to(source)
    before = out.lstat()
    assert build("--input", str(source), "--out", str(out)).exit_code == 2
    assert out.lstat().st_ino == before.st_ino
    assert not list(tmp_path.glob("*.partial"))
