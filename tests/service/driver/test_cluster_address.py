"""The cluster that RAY_ADDRESS names is looked at before a campaign begins."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from ray._private import services

from spectune.service.cli import main
from spectune.service.driver.cluster_address import require_cluster
from spectune.service.errors import SettingsError


@pytest.mark.parametrize("environment", [{}, {"RAY_ADDRESS": ""}])
def test_nothing_is_asked_where_no_machine_is_named(environment: dict[str, str]) -> None:
    require_cluster(environment)


def test_a_ray_of_this_machine_is_found_and_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray remembers the one that was started last, and waits for it when it was killed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(services, "canonicalize_bootstrap_address_or_die", lambda _: address)
        require_cluster({"RAY_ADDRESS": "auto"})
    with pytest.raises(SettingsError, match=r"no cluster answers there \(Connection refused\): got 'auto'$"):
        require_cluster({"RAY_ADDRESS": "auto"})


def test_where_no_ray_runs_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(_: str) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(services, "canonicalize_bootstrap_address_or_die", find)
    with pytest.raises(SettingsError, match=r"^RAY_ADDRESS: no Ray runs on this machine: got 'auto'$"):
        require_cluster({"RAY_ADDRESS": "auto"})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_head_that_listens_will_do(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        require_cluster({"RAY_ADDRESS": f"{host}:{server.getsockname()[1]}"})


@pytest.mark.parametrize(
    "address",
    ["local", "ray://127.0.0.1:10001", "http://127.0.0.1:8265", "127.0.0.1", "127.0.0.1:", ":6379", "h:0", "h:70000"],
)
def test_what_is_no_head_of_a_cluster_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match=f"RAY_ADDRESS: HOST:PORT .* got '{address}'$"):
        require_cluster({"RAY_ADDRESS": address})


def test_a_campaign_for_a_cluster_that_is_gone_is_refused_at_once_and_nothing_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    data = tmp_path / "data"
    monkeypatch.setattr(sys, "argv", ["spectune", "demo", "--data-dir", str(data)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert f"no cluster answers there (Connection refused): got '{address}'" in capsys.readouterr().err
    assert not data.exists()
