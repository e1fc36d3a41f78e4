"""Settings: each variable is read once, and a wrong one is named with its value."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import Settings


def test_without_variables_everything_is_our_own() -> None:
    settings = Settings.from_environment({"SPECTUNE_DATABASE_URL": ""})
    assert (settings.database_url, settings.mlflow_uri) == (None, None)
    assert settings.task_modules == ()
    assert settings.num_cpus >= 1


def test_each_variable_is_read() -> None:
    environment = {
        "SPECTUNE_DATABASE_URL": "postgresql://x",
        "SPECTUNE_TASK_MODULES": "a.b, c",
        "SPECTUNE_CORPORA": "/data/a:/data/b",
        "SPECTUNE_CPUS": "3",
        "SPECTUNE_MAX_RUNNING": "2",
    }
    settings = Settings.from_environment(environment)
    assert (settings.task_modules, settings.num_cpus, settings.max_running) == (("a.b", "c"), 3, 2)
    assert settings.corpora == (Path("/data/a"), Path("/data/b"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPECTUNE_CPUS", "0"),
        ("SPECTUNE_CPUS", "two"),
        ("SPECTUNE_MAX_RUNNING", "-1"),
        ("SPECTUNE_TASK_MODULES", "os; rm"),
        ("SPECTUNE_TASK_MODULES", "service.cli"),
        ("SPECTUNE_CORPORA", "relative/folder"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}.*got '{value}'"):
        Settings.from_environment({name: value})
