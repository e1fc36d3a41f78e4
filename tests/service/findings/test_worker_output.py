"""What workers printed is read by trial, whatever bytes are in it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from spectune.service.findings.worker_output import Printed, printed_in, read_output
from spectune.trainers.worker.worker_output import marker


def test_stretches_are_attributed_and_silent_ones_left_out() -> None:
    content = b"loading\n" + marker([1]) + b"one\n" + marker([2]) + marker([1, 2]) + b"both\n" + marker([1]) + b"end"
    assert [(each.trials, each.text.strip()) for each in printed_in(content)] == [
        ((), "loading"),
        ((1,), "one"),
        ((1, 2), "both"),
        ((1,), "end"),
    ]


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"\n\x1e", b'{"trials": [true]}', b"\x1e[1]\n"]), max_size=9))
def test_any_bytes_are_read_and_clean(parts: list[bytes]) -> None:
    for each in printed_in(b"".join(parts) + marker([7]) + b"\x1b[31mred\xff"):
        assert isinstance(each, Printed)
        each.text.encode()
        assert "\x1b" not in each.text
    assert any(7 in each.trials for each in printed_in(b"".join(parts) + marker([7]) + b"red"))


def test_all_attempts_and_workers_are_read_with_headings(tmp_path: Path) -> None:
    for attempt, worker, trial in (("attempt-2", "a", 0), ("attempt-10", "b", 0), ("attempt-2", "c", 1)):
        (tmp_path / attempt).mkdir(exist_ok=True)
        (tmp_path / attempt / f"{worker}.log").write_bytes(marker([trial]) + f"by {worker}\n".encode())
    assert read_output(tmp_path, trial=0) == (
        "== attempt 2, worker a, trial 0 ==\nby a\n\n== attempt 10, worker b, trial 0 ==\nby b\n"
    )
    assert "by c" in read_output(tmp_path)
    assert read_output(tmp_path, trial=9) == ""
    assert read_output(tmp_path / "nowhere") == ""
