"""Checkpoint files: whole or refused."""

from __future__ import annotations

import math
import os
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from spectune.trainers import checkpoints
from spectune.trainers.checkpoints import CheckpointError

STATE: dict[str, Any] = {
    "step": 7,
    "weights": {"left": torch.arange(6, dtype=torch.float64).view(2, 3), "half": torch.ones(2, dtype=torch.bfloat16)},
    "betas": (0.9, 0.95),
    "names": ["a", None, True],
    "infinite": math.inf,
}


OTHER: dict[str, Any] = {"step": 9, "weights": torch.zeros(3)}


def as_plain(state: dict[str, Any]) -> dict[str, Any]:
    """Replace tensors by lists, so that states can be compared."""
    return {
        key: as_plain(value)
        if isinstance(value, dict)
        else value.tolist()
        if isinstance(value, torch.Tensor)
        else value
        for key, value in state.items()
    }


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path / "new", 3, {4: STATE, 5: OTHER})
    loaded = checkpoints.load(path, 4)
    assert torch.equal(loaded["weights"]["left"], STATE["weights"]["left"])
    assert loaded["weights"]["half"].dtype is torch.bfloat16
    assert as_plain(loaded) == as_plain(STATE)
    assert as_plain(checkpoints.load(path, 5)) == as_plain(OTHER)
    assert checkpoints.contents(path) == {4: 7, 5: 9}


@pytest.mark.parametrize("kept_bytes", [0, 3, 30, 200, -1])
def test_a_torn_file_is_refused_by_name(tmp_path: Path, kept_bytes: int) -> None:
    path = checkpoints.save(tmp_path, 7, {0: STATE})
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(CheckpointError, match=r"torn.*0000000007\.ckpt"):
        checkpoints.load(path, 0)


def problem_with(path: Path) -> str | None:
    """Return why a file that held STATE is refused; None where it still gives it."""
    try:
        loaded = checkpoints.load(path, 0)
    except CheckpointError as error:
        return str(error)
    assert as_plain(loaded) == as_plain(STATE), "damage was laundered"
    return None


def test_a_flipped_bit_is_refused_by_name_or_lies_where_nothing_is_read(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, 7, {0: STATE})
    whole = path.read_bytes()
    num_refused = 0
    for position in range(0, len(whole), 31):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        problem = problem_with(path)
        assert problem is None or "0000000007.ckpt" in problem
        num_refused += problem is not None
    assert num_refused > 0.9 * len(whole) / 31


def test_a_checksum_that_zip_would_not_notice_is_ours_to_notice(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, 7, {0: STATE})
    with zipfile.ZipFile(path) as archive:
        content = bytearray(archive.read("trial-0/step-7"))
    content[-9] ^= 1
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("trial-0/step-7", bytes(content))
    with pytest.raises(CheckpointError, match=r"checksum of trial 0 .*0000000007"):
        checkpoints.load(path, 0)


def test_what_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"No such file.*0000000001\.ckpt"):
        checkpoints.load(checkpoints.path_of(tmp_path, 1), 0)
    path = checkpoints.save(tmp_path, 2, {0: STATE})
    with pytest.raises(CheckpointError, match=r"0000000002\.ckpt' does not hold the trial: got 3"):
        checkpoints.load(path, 3)


@pytest.mark.parametrize("value", [object(), OrderedDict(a=1), torch.nn.Parameter(torch.ones(1)), {1, 2}])
def test_a_state_that_could_not_be_read_back_is_refused_with_its_place(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"state\['model'\]\[1\] .* got {type(value).__name__}"):
        checkpoints.save(tmp_path, 1, {0: {"step": 1, "model": [1, value]}})
    assert list(tmp_path.iterdir()) == []


def test_the_latest_whole_state_is_found_wherever_it_is(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "attempt-1" / "a", 1, {0: {"step": 5}, 1: {"step": 50}})
    checkpoints.save(tmp_path / "attempt-1" / "b", 9, {0: {"step": 10}})
    newest = checkpoints.save(tmp_path / "attempt-2" / "a", 1, {0: {"step": 20}})
    assert checkpoints.Shelf(tmp_path).latest(0).state == {"step": 20}
    assert checkpoints.Shelf(tmp_path).latest(1).state == {"step": 50}
    newest.write_bytes(b"torn")
    found = checkpoints.Shelf(tmp_path).latest(0)
    assert (found.path, found.state) == (tmp_path / "attempt-1" / "b" / "0000000009.ckpt", {"step": 10})
    assert [str(error) for error in found.refused] == [f"not a checkpoint, torn or damaged: got '{newest}'"]


def test_damage_to_one_trial_leaves_the_others_of_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "attempt-1" / "a"
    checkpoints.save(folder, 1, {0: {"step": 5}, 1: {"step": 5}})
    path = checkpoints.save(folder, 2, {0: {"step": 10, "mark": "here it is"}, 1: {"step": 10}})
    path.write_bytes(path.read_bytes().replace(b"here it is", b"here it IS"))
    shelf = checkpoints.Shelf(tmp_path)
    assert (shelf.latest(0).state, shelf.latest(1).state) == ({"step": 5}, {"step": 10})
    assert [str(path) in str(error) for error in shelf.latest(0).refused] == [True]


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    found = checkpoints.Shelf(tmp_path / "missing").latest(0)
    assert (found.path, found.state, found.refused) == (None, None, ())


def test_prune_keeps_the_newest_two_and_sweeps_up_interrupted_writes(tmp_path: Path) -> None:
    for number in (5, 10, 100):
        checkpoints.save(tmp_path, number, {0: {"step": number}})
    (tmp_path / ".0000000200.ckpt.1.partial").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not ours")
    checkpoints.prune(tmp_path)
    kept = ["0000000010.ckpt", "0000000100.ckpt", "notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def test_a_failed_write_leaves_the_file_before_it_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoints.save(tmp_path, 7, {0: {"step": 7}})

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(tmp_path, 7, {0: {"step": 8}})
    assert checkpoints.load(path, 0) == {"step": 7}
    assert list(tmp_path.iterdir()) == [path]
