"""Nothing secret of the environment is written anywhere: not by a campaign, not by its driver, not by a service."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fakes.mlflow_server import PrivateMlflow
from tests.integration.conftest import DOCUMENT, Run
from tests.integration.serving import Serving, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]  # of the server's process

SECRET = "hunter2hunter2"
ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": f"{SECRET}-aws",
    "HF_TOKEN": f"hf_{SECRET}",
    "GITHUB_TOKEN": f"ghp_{SECRET}",
    "WANDB_API_KEY": f"{SECRET}-key",
    "DATABASE_URL": f"postgresql://me:{SECRET}@127.0.0.1/mine",
    "MY_PASSWORD": f"{SECRET}-password",
    "MLFLOW_TRACKING_USERNAME": "admin",
    "MLFLOW_TRACKING_PASSWORD": f"{SECRET}-mlflow",
    "SPECTUNE_API_KEY": f"spk_0a_{SECRET}",
}
SMALL = {**DOCUMENT, "search": {**DOCUMENT["search"], "points": 2}, "tags": {"team": "ours"}}


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for all that Ray writes, with a name short enough for its sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def secret_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def told_in(folder: Path) -> list[str]:
    """List the files that hold the secret, packed ones included."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in files if any(SECRET.encode() in content for content in contents(path))]


def contents(path: Path) -> Iterator[bytes]:
    """Yield what is in a file and, if it is packed, in each file that it packs."""
    yield path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            yield from map(packed.read, packed.namelist())


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"password={SECRET}", encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inside", SECRET)
    assert sorted(told_in(tmp_path)) == [str(tmp_path / "log"), str(tmp_path / "packed.zip")]


def test_a_campaign_writes_no_secret_of_its_environment(tmp_path: Path, ray_folder: Path) -> None:
    run = Run(SMALL, tmp_path)
    driver: psutil.Process = run.wait_for(lambda run: run.driver() if run.num_observations() else None)
    arguments = [" ".join(each.cmdline()) for each in run.descendants() if each.is_running()]
    held_by_driver = driver.environ()
    assert list(ray_folder.rglob("*.log")) or list(ray_folder.rglob("*.out"))
    assert told_in(ray_folder) == []
    outcome = run.finish()
    assert outcome.exit_status == 0, outcome.stderr
    assert any("spectune.service.driver" in each for each in arguments)
    assert not [each for each in arguments if SECRET in each]
    kept_back = ("SPECTUNE_API_KEY", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    assert not held_by_driver.keys() & set(kept_back)
    assert SECRET not in outcome.stdout + outcome.stderr
    assert (tmp_path / "data" / "mlflow.sqlite").exists()
    assert list((tmp_path / "data" / "mlflow-artifacts").rglob("report.html"))
    assert list((tmp_path / "data" / "mlflow-artifacts").rglob("bundle.zip"))
    assert told_in(tmp_path) == []
    assert told_in(ray_folder) == []


def test_a_service_names_a_wrong_password_and_shows_none(
    tmp_path: Path, guarded_mlflow: PrivateMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its MLflow refuses it: /readyz and the log say why, and campaigns would go on."""
    monkeypatch.setenv("SPECTUNE_MLFLOW_URI", guarded_mlflow.address)
    monkeypatch.setenv("SPECTUNE_DATABASE_URL", "")
    serving = Serving(tmp_path)
    try:
        serving.wait_until_ready()
        degraded = wait_for(lambda: httpx.get(f"{serving.url}/readyz", timeout=10.0).json()["degraded"].get("mlflow"))
        assert degraded.startswith("MLflow refuses the user or the password")
        assert "MLflow refuses the user or the password" in serving.log.read_text(encoding="utf-8")
    finally:
        serving.remove()
    assert told_in(tmp_path) == []
    assert not [name for name in os.listdir(tmp_path) if SECRET in name]
