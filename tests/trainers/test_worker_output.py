"""What is printed in a worker is kept in a file, by trial, bounded, and never raises into training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from spectune.trainers.worker.worker_output import HEAD_BYTES, MARK, MOST_BYTES, TAIL_BYTES, marker

PRINT = """
import logging, os, subprocess, sys, warnings
from pathlib import Path
from spectune.trainers.worker.worker_output import WorkerOutput
output = WorkerOutput(Path(sys.argv[1]))
print("before any trial")
output.attribute([3])
print("from Python", flush=False)
os.write(2, b"from a library\\n")
subprocess.run(["sh", "-c", "echo from a child"])
logging.warning("from logging")
output.attribute([3])
output.attribute([4, 5])
warnings.warn("from a warning")
if len(sys.argv) > 2:
    os.kill(os.getpid(), 9)
"""
FILL = """
import sys
from pathlib import Path
from spectune.trainers.worker.worker_output import WorkerOutput
output = WorkerOutput(Path(sys.argv[1]))
output.attribute([1])
print("the first line")
for number in range(90_000):
    print("x" * 60)
print("the last line")
sys.stdout.flush()
output.shorten()
print("and then")
"""


def run(script: str, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-c", script, *arguments], check=False, capture_output=True).returncode


def test_everything_that_is_printed_is_kept_with_its_trials(tmp_path: Path) -> None:
    file = tmp_path / "output" / "slot.log"
    assert run(PRINT, str(file)) == 0
    before, third, rest = file.read_bytes().split(b"\n" + MARK)
    assert before == b"before any trial\n"
    assert json.loads(third.split(b"\n")[0]) == {"trials": [3]}
    for words in (b"from Python", b"from a library", b"from a child", b"WARNING:root:from logging"):
        assert words in third
    assert json.loads(rest.split(b"\n")[0]) == {"trials": [4, 5]}
    assert b"UserWarning: from a warning" in rest


def test_a_worker_that_is_killed_has_lost_nothing(tmp_path: Path) -> None:
    file = tmp_path / "slot.log"
    assert run(PRINT, str(file), "killed") == -9
    assert b"from Python" in file.read_bytes()
    assert b"from a warning" in file.read_bytes()


def test_of_a_file_that_grows_too_large_head_and_tail_stay(tmp_path: Path) -> None:
    file = tmp_path / "slot.log"
    assert run(FILL, str(file)) == 0
    content = file.read_bytes()
    assert len(content) < HEAD_BYTES + TAIL_BYTES + 1000 < MOST_BYTES
    assert content.startswith(marker([1]) + b"the first line\n")
    assert content.endswith(b"the last line\nand then\n")
    assert b"bytes left out ...]\n" + marker([1]) in content


def test_a_place_that_cannot_be_written_keeps_nothing_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert run(PRINT, str(tmp_path / "file" / "slot.log")) == 0
