"""Settings: each variable is read once, and a wrong one is named with its value."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectune.service.errors import SettingsError
from spectune.service.settings import Settings


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


def test_the_address_of_mlflow_holds_no_password_and_a_refusal_does_not_show_it() -> None:
    """An address goes into links and logs."""
    for name in ("SPECTUNE_MLFLOW_URI", "SPECTUNE_MLFLOW_PAGES"):
        for address in ("https://me:hunter2@mlflow", "https://me@mlflow:5000/", "ftp://me:hunter2@mlflow", "https://["):
            with pytest.raises(SettingsError, match=name) as refused:
                Settings.from_environment({name: address})
            assert "hunter2" not in str(refused.value)
    assert Settings.from_environment({"SPECTUNE_MLFLOW_URI": "https://mlflow/x/"}).mlflow_uri == "https://mlflow/x"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPECTUNE_CPUS", "0"),
        ("SPECTUNE_CPUS", "two"),
        ("SPECTUNE_MAX_RUNNING", "-1"),
        ("SPECTUNE_TASK_MODULES", "os; rm"),
        ("SPECTUNE_TASK_MODULES", "spectune.service.cli"),
        ("SPECTUNE_CORPORA", "relative/folder"),
        ("SPECTUNE_MLFLOW_URI", "mlflow:5000"),
        ("SPECTUNE_MLFLOW_PAGES", "http://mlflow/#/x"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}.*got '{value}'"):
        Settings.from_environment({name: value})


def test_the_address_of_a_ray_holds_no_user() -> None:
    given = {"SPECTUNE_RAY_ADDRESS": "http://ray-head:8265/"}
    assert Settings.from_environment(given).ray_address == "http://ray-head:8265"
    with pytest.raises(SettingsError, match="RAY_AUTH_TOKEN"):
        Settings.from_environment({"SPECTUNE_RAY_ADDRESS": "http://me:secret@ray-head:8265"})
