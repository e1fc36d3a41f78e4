"""`spectune keys` makes, lists and revokes keys; listing them writes nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spectune.service.cli.application import application
from spectune.service.errors import DataDirectoryError
from tests.fakes.unprivileged import forbid_writing, run_unprivileged


@pytest.fixture
def data_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user may reach, unlike those of pytest."""
    monkeypatch.delenv("SPECTUNE_DATABASE_URL", raising=False)
    made = Path(tempfile.mkdtemp(prefix="spectune-keys-"))
    yield made
    made.chmod(0o700)
    shutil.rmtree(made)


def keys(data_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(application, ["keys", *arguments, "--data-dir", str(data_dir)])


def test_keys_are_listed_where_nothing_may_be_written(data_dir: Path) -> None:
    assert keys(data_dir, "create", "--owner", "ada", "--role", "viewer").exit_code == 0
    assert "ada" in keys(data_dir, "list").output
    forbid_writing(data_dir)
    before = sorted(path.name for path in data_dir.iterdir())

    def read() -> None:
        result = keys(data_dir, "list")
        assert "ada" in result.output, (result.output, result.exception)

    assert run_unprivileged(read) == (0, "")
    assert sorted(path.name for path in data_dir.iterdir()) == before


def test_a_folder_without_a_ledger_has_no_keys_and_gets_none(data_dir: Path) -> None:
    result = keys(data_dir, "list")
    assert isinstance(result.exception, DataDirectoryError)
    assert list(data_dir.iterdir()) == []
