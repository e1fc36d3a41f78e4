"""The spool keeps what was appended, drops a torn tail, and marks damage that no crash can cause."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spectune.service.ledger.spool import Record, Spool, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "campaign" / "spool-1.jsonl"


def append(path: Path, *records: Record) -> int:
    with Spool(path) as spool:
        return spool.append(records)


def test_entries_come_back_in_order_with_their_positions(path: Path) -> None:
    with Spool(path) as spool:
        assert spool.append([{"a": 1}, {"b": 2}]) == 2
        assert spool.append([]) == 2
        assert spool.append([{"c": 3}]) == 3
    assert list(read(path)) == [(1, {"a": 1}), (2, {"b": 2}), (3, {"c": 3})]
    assert list(read(path, after=2)) == [(3, {"c": 3})]


def test_a_missing_spool_has_no_entries(path: Path) -> None:
    assert list(read(path)) == []


def test_a_number_that_json_cannot_say_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        append(path, {"loss": float("nan")})


@pytest.mark.parametrize("num_bytes", range(1, 25))
def test_a_tail_torn_at_any_byte_is_dropped_and_the_next_entry_follows_the_last_whole_one(
    path: Path, num_bytes: int
) -> None:
    append(path, {"whole": 1})
    append(path, {"torn": "xxxxxxxxxxxxx"})
    os.truncate(path, path.stat().st_size - num_bytes)
    assert list(read(path)) == [(1, {"whole": 1})]
    assert append(path, {"next": 2}) == 2
    assert list(read(path)) == [(1, {"whole": 1}), (2, {"next": 2})]


def test_a_flipped_bit_in_the_middle_is_marked_and_the_rest_is_read(path: Path) -> None:
    append(path, {"first": 1}, {"second": 2})
    data = bytearray(path.read_bytes())
    data[15] ^= 1
    path.write_bytes(bytes(data))
    (_, damaged), second = read(path)
    assert (damaged["kind"], damaged["at_byte"]) == ("damaged", 0)
    assert "fisst" in damaged["found"]
    assert second == (2, {"second": 2})
    assert append(path, {"third": 3}) == 3


def test_a_missing_entry_is_marked(path: Path) -> None:
    append(path, {"first": 1}, {"second": 2}, {"third": 3})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    first, (position, damaged), third = read(path)
    assert (first, third) == ((1, {"first": 1}), (3, {"third": 3}))
    assert (position, damaged["kind"], damaged["found"]) == (2, "damaged", "no entries 2 to 2")
