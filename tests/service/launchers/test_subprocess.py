"""What a driver's process is given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.data_directory import DataDirectory
from service.launchers.marks import absolute_path
from service.launchers.subprocess import SubprocessLauncher


@pytest.mark.parametrize(
    ("given", "expected"),
    [(".", "{here}"), ("tasks:/a/b:../x", "{here}/tasks:/a/b:{above}/x"), ("", ""), ("/a:", "/a:")],
)
def test_a_search_path_means_the_same_wherever_the_driver_runs(
    given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PYTHONPATH=. a task was found when the campaign was read, and by no driver."""
    monkeypatch.chdir(tmp_path)
    assert absolute_path(given) == expected.format(here=tmp_path, above=tmp_path.parent)
    monkeypatch.setenv("PYTHONPATH", given)
    environment = SubprocessLauncher(DataDirectory(tmp_path))._environment()
    assert environment["PYTHONPATH"] == absolute_path(os.environ["PYTHONPATH"])
