"""Checkpoint files: whole or refused."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from trainers import checkpoints
from trainers.checkpoints import CheckpointError

STATE: dict[str, Any] = {
    "step": 7,
    "weights": {"left": torch.arange(6, dtype=torch.float64).view(2, 3), "half": torch.ones(2, dtype=torch.bfloat16)},
    "betas": (0.9, 0.95),
    "names": ["a", None, True],
    "infinite": math.inf,
}


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    loaded = checkpoints.load(checkpoints.save(tmp_path / "new", 7, STATE))
    assert torch.equal(loaded["weights"]["left"], STATE["weights"]["left"])
    assert loaded["weights"]["half"].dtype is torch.bfloat16
    assert {key: loaded[key] for key in STATE if key != "weights"} == {k: v for k, v in STATE.items() if k != "weights"}


@pytest.mark.parametrize("kept_bytes", [0, 3, 30, 200, -1])
def test_a_torn_file_is_refused_by_name(tmp_path: Path, kept_bytes: int) -> None:
    path = checkpoints.save(tmp_path, 7, STATE)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(CheckpointError, match=r"torn.*step-0000000007\.ckpt"):
        checkpoints.load(path)


def test_a_single_flipped_bit_anywhere_is_refused(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, 7, STATE)
    whole = path.read_bytes()
    for position in range(0, len(whole), 97):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="step-0000000007"):
            checkpoints.load(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"No such file.*step-0000000001\.ckpt"):
        checkpoints.load(checkpoints.path_at(tmp_path, 1))


@pytest.mark.parametrize("value", [object(), OrderedDict(a=1), torch.nn.Parameter(torch.ones(1)), {1, 2}])
def test_a_state_that_could_not_be_read_back_is_refused_with_its_place(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"state\['model'\]\[1\] .* got {type(value).__name__}"):
        checkpoints.save(tmp_path, 1, {"model": [1, value]})
    assert list(tmp_path.iterdir()) == []


def test_latest_passes_over_damaged_files_and_says_which(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        checkpoints.save(tmp_path, step, {"step": step})
    checkpoints.path_at(tmp_path, 100).write_bytes(b"torn")
    found = checkpoints.latest(tmp_path)
    assert found.path == checkpoints.path_at(tmp_path, 10)
    assert found.state == {"step": 10}
    assert [str(error) for error in found.refused] == [
        f"not a checkpoint, or torn: got '{checkpoints.path_at(tmp_path, 100)}'"
    ]


def test_latest_finds_nothing_where_nothing_is(tmp_path: Path) -> None:
    found = checkpoints.latest(tmp_path / "missing")
    assert (found.path, found.state, found.refused) == (None, None, ())


def test_prune_keeps_the_newest_two_and_sweeps_up_interrupted_writes(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        checkpoints.save(tmp_path, step, {"step": step})
    (tmp_path / ".step-0000000200.ckpt.1.partial").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not ours")
    checkpoints.prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes.txt",
        "step-0000000010.ckpt",
        "step-0000000100.ckpt",
    ]


def test_a_failed_write_leaves_the_file_before_it_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoints.save(tmp_path, 7, {"step": 7})

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(tmp_path, 7, {"step": 8})
    assert checkpoints.load(path) == {"step": 7}
    assert list(tmp_path.iterdir()) == [path]
