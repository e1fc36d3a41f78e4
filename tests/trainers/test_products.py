"""Products of matrices that give a trial the same bits in any batch."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

COUNT_DIFFERENT = """
import random, sys, torch
from trainers.products import pin_products
if sys.argv[1] == "pinned":
    pin_products()
torch.set_num_threads(1)
torch.manual_seed(0)
choose = random.Random(0).choice
num_different = 0
for _ in range(200):
    trials, rows, inner, columns = choose([2, 3, 7, 16]), *(choose([5, 16, 20, 33, 48, 64, 100]) for _ in range(3))
    folded, weights = torch.randn(trials, rows, inner), torch.randn(inner, columns)
    together = (folded.reshape(-1, inner) @ weights).view(trials, rows, columns)
    num_different += not torch.equal(together[0], folded[0] @ weights)
print(num_different)
"""


def num_different(how: str, **variables: str) -> int:
    """Count the products whose rows differ from the same rows alone, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"} | variables
    command = [sys.executable, "-c", COUNT_DIFFERENT, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


needs_mkl = pytest.mark.skipif(
    not torch.backends.mkl.is_available() or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason=f"torch has no MKL for this processor ({platform.machine()})",
)


@needs_mkl
def test_rows_of_several_trials_give_the_bits_of_each_alone_where_they_are_pinned() -> None:
    assert num_different("pinned") == 0
    assert num_different("as it comes", MKL_CBWR="AVX2") > 0, "this test cannot fail"


@needs_mkl
def test_what_the_environment_says_stays() -> None:
    assert num_different("pinned", MKL_CBWR="AVX2") > 0


MULTIPLY_IN_A_SLOT = """
import sys, torch
from trainers.slot import Slot, SlotOptions
Slot("slot", None, SlotOptions(sys.argv[1], "attempt-1", 1.0, cpus=1))
torch.ones(100, 100) @ torch.ones(100, 100)
"""


@needs_mkl
def test_a_slot_pins_its_products_before_the_first(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"} | {"MKL_VERBOSE": "1"}
    command = [sys.executable, "-c", MULTIPLY_IN_A_SLOT, str(tmp_path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    assert f"CNR:{torch.backends.cpu.get_cpu_capability()},STRICT" in told
