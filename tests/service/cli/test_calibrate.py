"""`spectune calibrate`: what it prints, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from spectune.optimizers.rules.calibration import calibrate
from spectune.service.cli.application import application


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTUNE_CACHE_DIR", str(tmp_path))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(application, ["calibrate", *arguments], env={"COLUMNS": "300", "TERM": "dumb"})


def test_it_prints_the_fit_of_the_momenta_of_the_shape_asked_for(folder):
    momenta = {"a": torch.randn(6, 18), "b": torch.randn(18, 6), "c": torch.randn(4, 4)}
    torch.save(momenta, folder / "momenta.pt")
    result = run("--shape", "6x18", "--momenta", str(folder / "momenta.pt"), "--mix", "1:2", "--steps", "3", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    expected = calibrate((6, 18), momenta=[momenta["a"], momenta["b"]], mix=(1, 2), steps=3)
    assert [tuple(triple) for triple in document["triples"]] == list(expected)
    assert document["mean_square_error"]["fitted"] < document["mean_square_error"]["classic"]
    assert "classic triple" in run("--shape", "6x18", "--steps", "3").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "6by18"], "got '6by18'"),
        (["--shape", "0x3"], "got (0, 3)"),
        (["--shape", "6x18", "--mix", "1/3"], "got '1/3'"),
        (["--shape", "6x18", "--steps", "0"], "between 1 and 99: got 0"),
        (["--shape", "6x18", "--momenta", "nowhere.pt"], "nowhere.pt"),
    ],
)
def test_bad_input_is_refused_with_its_value(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_file_that_is_no_dictionary_of_tensors_or_has_none_of_the_shape_is_refused(folder):
    torch.save({"a": torch.zeros(4, 5)}, folder / "other.pt")
    torch.save([1, 2], folder / "list.pt")
    (folder / "text.pt").write_text("momenta")
    for name, message in (("other.pt", "got [(4, 5)]"), ("list.pt", "got list"), ("text.pt", "text.pt")):
        result = run("--shape", "6x18", "--momenta", str(folder / name))
        assert result.exit_code == 2
        assert message in result.output
