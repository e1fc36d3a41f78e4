"""The compose file is true: its commands and environments, run as processes of this machine, make a service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from spectune.service.client import Client
from spectune.service.hosting.daemon import free_ports
from tests.fakes.postgres import USER, PrivatePostgres, find_binaries
from tests.integration.conftest import DOCUMENT

FILE = Path(__file__).parents[2] / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
VARIABLES = {"SPECTUNE_POSTGRES_PASSWORD": "s3cret", "SPECTUNE_BOOTSTRAP_OWNER": "me"} | {
    "SPECTUNE_PORT": "",
    "SPECTUNE_CPUS": "",
    "SPECTUNE_WORKER_CPUS": "",
    "SPECTUNE_RAY_TOKEN": "0123456789abcdef" * 3,
}


def filled_in(text: str) -> str:
    """Fill in variables as compose does."""

    def value(found: re.Match[str]) -> str:
        name, _, default = found[1].partition(":")
        given = VARIABLES[name]
        return given or default.removeprefix("-")

    return re.sub(r"\$\{([^}]+)\}", value, text)


def command(service: str) -> list[str]:
    """Return the command of a service; the programs are those of the interpreter that runs now."""
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


def test_the_override_for_gpus_changes_the_workers_alone() -> None:
    override = yaml.safe_load((FILE.parent / "deploy" / "compose.gpu.yml").read_text(encoding="utf-8"))
    assert list(override) == ["services"]
    assert override["services"].keys() == {"ray-worker"} <= COMPOSE["services"].keys()
    devices = override["services"]["ray-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert not any("gpu" in word for word in command("ray-worker")), "Ray is to find the GPUs itself"


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
    """PostgreSQL stands at another port here and trusts us; Ray and MLflow are left out: the next test has them."""
    port = free_ports("http")["http"]
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
    with started([*run("service"), "--no-tracking", "--no-ray"], environment, tmp_path / "service.log"):
        url = f"http://127.0.0.1:{port}"
        _wait_until(lambda: httpx.get(f"{url}/readyz", timeout=5.0).status_code == 200)
        assert httpx.post(f"{url}/v1/campaigns", json=DOCUMENT).status_code == 401
        headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
        assert httpx.post(f"{url}/v1/campaigns:preview", json=DOCUMENT, headers=headers, timeout=30).status_code == 200


class Cluster:
    """Every service of the file on this machine: other ports, loopback for names, a folder for the volumes."""

    def __init__(self, folder: Path, postgres: PrivatePostgres) -> None:
        self.folder = folder
        names = ("postgres:5432", "mlflow:5000", "ray-head:8265", "ray-head:6379", "service:8000", *_AGENTS)
        self.ports = free_ports(*names)
        self._database = postgres.new_database()
        (folder / "mlflow").mkdir()
        (folder / "campaigns").mkdir()

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment that the file gives, and nothing of ours but what programs are found by."""
        given = {
            name: self._here(filled_in(each)) for name, each in COMPOSE["services"][service]["environment"].items()
        }
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        kept |= {"PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "RAY_TMPDIR": f"/tmp/{self.folder.name}"}
        return kept | {"OMP_NUM_THREADS": "1", **given}

    def command(self, service: str) -> list[str]:
        program, *words = command(service)
        extra = [f"{option}={self.ports[each]}" for each, option in _AGENTS.items() if each.startswith(f"{service} ")]
        return [program, *(self._here(word) for word in words), *extra]

    def healthcheck(self, service: str) -> list[str]:
        """Return what asks after a service's health, as arguments of a process."""
        kind, *words = COMPOSE["services"][service]["healthcheck"]["test"]
        here = [self._here(word.replace("$$", "$").replace("127.0.0.1", service), loopback=True) for word in words]
        return ["sh", "-c", *here] if kind == "CMD-SHELL" else here

    def is_healthy(self, service: str) -> bool:
        asked = self.healthcheck(service)
        environment = self.environment(service)
        return subprocess.run(asked, env=environment, capture_output=True, timeout=60, check=False).returncode == 0

    def _here(self, word: str, *, loopback: bool = False) -> str:
        if word.startswith("postgresql://"):
            return self._database
        for place, port in self.ports.items():
            host, _, old = place.partition(":")
            word = word.replace(place, f"127.0.0.1:{port}")
            if not loopback and old and word in (f"--port={old}", f"--dashboard-port={old}"):
                word = word.replace(old, str(port)) if host == self._host_of(word, old) else word
        return word.replace("/data", str(self.folder)).replace("0.0.0.0", "127.0.0.1")

    def _host_of(self, word: str, old: str) -> str:
        return next(place.partition(":")[0] for place in self.ports if place.endswith(f":{old}"))


# Two nodes of one cluster have one machine here, and other clusters may stand beside them.
_AGENTS = {
    "ray-head agent": "--dashboard-agent-listen-port",
    "ray-head grpc": "--dashboard-agent-grpc-port",
    "ray-head runtime": "--runtime-env-agent-port",
    "ray-head client": "--ray-client-server-port",
    "ray-worker agent": "--dashboard-agent-listen-port",
    "ray-worker grpc": "--dashboard-agent-grpc-port",
    "ray-worker runtime": "--runtime-env-agent-port",
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not os.environ.get("SPECTUNE_FAULTS"), reason="part of `make faults`: five servers at once")
def test_all_services_of_the_file_run_a_campaign_through_the_published_port(
    postgres: PrivatePostgres, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cluster = Cluster(tmp_path_factory.mktemp("c"), postgres)
    made = subprocess.run(
        cluster.command("migrate"), env=cluster.environment("migrate"), capture_output=True, text=True, check=True
    )
    with ExitStack() as stack:
        try:
            for name in ("mlflow", "ray-head", "ray-worker", "service"):
                log = cluster.folder / f"{name}.log"
                stack.enter_context(started(cluster.command(name), cluster.environment(name), log))
                _wait_until(lambda service=name: cluster.is_healthy(service))  # type: ignore[misc]
            with Client(cluster.url("service:8000"), api_key=made.stdout.strip()) as client:
                campaign_id = client.submit(DOCUMENT | {"resources": {"workers": 1, "cpus": 1}})["id"]
                _wait_until(lambda: client.campaign(campaign_id)["state"] in ("SUCCEEDED", "FAILED"), seconds=180.0)
                assert client.campaign(campaign_id)["state"] == "SUCCEEDED", client.logs(campaign_id)
                assert client.best(campaign_id)["best"] is not None
                _wait_until(lambda: client.tracking(campaign_id)["run"] is not None)
            assert httpx.get(f"{cluster.url('service:8000')}/readyz").json()["status"] == "ok"
        finally:
            for log in sorted(cluster.folder.glob("*.log")):
                print(log.name, log.read_text(encoding="utf-8")[-1500:])
    shutil.rmtree(f"/tmp/{cluster.folder.name}", ignore_errors=True)


@contextmanager
def started(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run a command until the end of the block; it must end cleanly, and leaves nothing behind."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=log.parent)
    try:
        yield
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        process.wait(timeout=60)
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()


def _wait_until(condition: Callable[[], bool], *, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if condition():
                return
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds:g} s in vain")
