"""What a driver's process is given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spectune.service.campaign.specification.sections import ResourcesSection
from spectune.service.data_directory import DataDirectory
from spectune.service.driver.exit_codes import ExitCode
from spectune.service.launchers.local_process import SubprocessLauncher
from spectune.service.launchers.process_tags import absolute_path, attempt_mark, marked


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


@pytest.mark.slow
def test_a_driver_whose_campaign_is_refused_leaves_nothing(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path / "data")
    launcher = SubprocessLauncher(data)
    mark = attempt_mark(data, "refused-1", 1)
    with launcher.standing_by("refused-1", ResourcesSection()):
        assert [process.pid for process in marked(mark)]
    assert not list(marked(mark))
    assert not data.root.exists()


@pytest.mark.slow
def test_a_driver_that_stands_by_ends_when_its_owner_does(tmp_path: Path) -> None:
    """Killed with SIGKILL while it checks a campaign, an owner ends nobody; its end of the pipe closes."""
    launcher = SubprocessLauncher(DataDirectory(tmp_path / "data"))
    with launcher.standing_by("orphan-1", ResourcesSection()):
        driver = launcher._standby
        assert driver is not None
        assert driver._process.stdin is not None
        driver._process.stdin.close()
        assert driver._process.wait(timeout=60) == ExitCode.CANCELLED
        assert driver.end_remains() == []


def test_a_driver_that_stands_by_for_one_campaign_takes_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = SubprocessLauncher(DataDirectory(tmp_path / "data"))
    monkeypatch.setattr("sys.executable", "/bin/true")  # ends at once: a driver that was lost while it stood by
    with launcher.standing_by("mine-1", ResourcesSection()):
        standby = launcher._standby
        assert standby is not None
        standby._process.wait(timeout=10)
        other = launcher.launch("other-1", 1)
        second = launcher.launch("mine-1", 2)
        first = launcher.launch("mine-1", 1)
        assert len({standby.pid, other.pid, second.pid, first.pid}) == 4, "a lost one was taken for a new one"
        for each in (other, second, first):
            each.kill()
