"""The compose file is true: its commands and environments, run as processes of this machine, make a service."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.fakes.postgres import USER, PrivatePostgres, find_binaries
from tests.integration.conftest import DOCUMENT

FILE = Path(__file__).parents[2] / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
VARIABLES = {"SPECTUNE_POSTGRES_PASSWORD": "s3cret", "SPECTUNE_BOOTSTRAP_OWNER": "me", "SPECTUNE_PORT": ""}


def filled_in(text: str) -> str:
    """Fill in variables as compose does."""

    def value(found: re.Match[str]) -> str:
        name, _, default = found[1].partition(":")
        given = VARIABLES[name]
        return given or default.removeprefix("-")

    return re.sub(r"\$\{([^}]+)\}", value, text)


def command(service: str) -> list[str]:
    """Give the command of a service; the programs are those of the interpreter that runs now."""
    program, *arguments = (filled_in(word) for word in COMPOSE["services"][service]["command"])
    return [str(Path(sys.executable).parent / program), *arguments]


def test_secrets_have_no_default_and_the_service_alone_leaves_the_machine_by_choice() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert "PASSWORD: ${SPECTUNE_POSTGRES_PASSWORD:?" in text
    assert COMPOSE["networks"]["private"] == {"internal": True}
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        assert "healthcheck" in service or name == "migrate", name


@pytest.fixture
def postgres() -> Iterator[PrivatePostgres]:
    binaries = find_binaries()
    if binaries is None:
        assert not os.environ.get("CI"), "continuous integration needs the package postgresql"
        pytest.skip("no PostgreSQL is installed")
    server = PrivatePostgres(binaries)
    yield server
    server.remove()


@pytest.mark.slow
def test_the_commands_of_migration_and_service_make_a_service_that_asks_for_its_first_key(
    postgres: PrivatePostgres, tmp_path: Path
) -> None:
    """PostgreSQL stands at another port here and trusts us; MLflow is left out, for it is tested elsewhere."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    told = filled_in(COMPOSE["services"]["service"]["environment"]["SPECTUNE_DATABASE_URL"])
    assert told == f"postgresql://{USER}:s3cret@postgres:5432/ledger"
    environment = os.environ | {"SPECTUNE_DATABASE_URL": postgres.new_database(), "OMP_NUM_THREADS": "1"}
    places = {"--data-dir=/data/campaigns": f"--data-dir={tmp_path}", "--port=8000": f"--port={port}"}

    def run(service: str) -> list[str]:
        return [places.get(word, word) for word in command(service)]

    refused = subprocess.run(run("service"), env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (refused.returncode, "without API keys" in refused.stderr) == (2, True)
    made = subprocess.run(run("migrate"), env=environment, capture_output=True, text=True, timeout=60, check=True)
    again = subprocess.run(run("migrate"), env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert again.stdout.strip() == "there is a key already"
    process = subprocess.Popen(
        [*run("service"), "--no-tracking"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url)
        assert httpx.post(f"{url}/v1/campaigns", json=DOCUMENT).status_code == 401
        headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
        assert httpx.post(f"{url}/v1/campaigns:preview", json=DOCUMENT, headers=headers, timeout=30).status_code == 200
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", timeout=5.0).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("the service does not answer")
