"""The spool keeps what was appended, drops a torn tail, and refuses damage that no crash can cause."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.errors import SpoolError
from service.ledger.spool import Record, Spool, read


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


def test_a_flipped_bit_in_the_middle_is_an_error_that_names_file_and_byte(path: Path) -> None:
    append(path, {"first": 1}, {"second": 2})
    data = bytearray(path.read_bytes())
    data[15] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(SpoolError, match=r"spool-1\.jsonl is damaged in the middle, at byte 0"):
        list(read(path))


def test_a_missing_entry_is_an_error(path: Path) -> None:
    append(path, {"first": 1}, {"second": 2}, {"third": 3})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(SpoolError, match="expected entry 2, got 3"):
        list(read(path))
