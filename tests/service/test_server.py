"""The door of the service: public only with keys, and one service for a data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectune.service.data_directory import DataDirectory
from spectune.service.errors import DataDirectoryError, SettingsError
from spectune.service.ledger import ServiceLedger
from spectune.service.ledger.access import Role
from spectune.service.server import check_door, is_loopback


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True)])
def test_loopback_is_recognised(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    assert is_loopback("localhost")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org", ""])
def test_a_public_address_needs_a_key(host: str) -> None:
    with ServiceLedger("sqlite://") as ledger:
        with pytest.raises(SettingsError, match=f"got '{host}'"):
            check_door(ledger, host)
        ledger.create_key(owner="me", role=Role.VIEWER)
        check_door(ledger, host)


def test_a_service_has_its_directory_alone_and_says_where_it_is(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    with (
        data.locked(),  # campaigns of `run` share it
        data.locked(),
        pytest.raises(DataDirectoryError, match="another command uses it"),
        data.locked(served_at="http://x"),
    ):
        pass
    with data.locked(served_at="http://there:8"):
        for served_at in (None, "http://other"):
            with (
                pytest.raises(DataDirectoryError, match="the service at http://there:8 has this"),
                data.locked(served_at=served_at),
            ):
                pass
    with data.locked(served_at="http://again"):
        pass


def test_replicas_share_their_directory_with_each_other_alone(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    with data.replicated(served_at="http://one") as is_last, data.replicated(served_at="http://two"):
        for served_at in (None, "http://alone", ""):
            with (
                pytest.raises(DataDirectoryError, match="the service at http://two has this"),
                data.locked(served_at=served_at),
            ):
                pass
        assert not is_last()
    with data.replicated(served_at="http://one") as is_last:
        assert is_last()
    for served_at in (None, "http://alone"):
        with (
            data.locked(served_at=served_at),
            pytest.raises(DataDirectoryError),
            data.replicated(served_at="http://one"),
        ):
            pass
