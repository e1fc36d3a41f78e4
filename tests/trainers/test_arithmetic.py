"""The arithmetic of processors: the same bits in any batch and, if it is portable, on any processor with AVX2."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

from spectune.service.campaign.specification.sections import ARITHMETICS
from spectune.service.campaign.specification.specification import Specification
from spectune.service.driver.environment import portable_environment
from spectune.trainers.worker.arithmetic import PORTABLE_VARIABLES, Arithmetic

COUNT_DIFFERENT = """
import random, sys, torch
from spectune.trainers.worker.arithmetic import Arithmetic, pin_arithmetic
if sys.argv[1] != "as it comes":
    pin_arithmetic(Arithmetic(sys.argv[1]))
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
@pytest.mark.parametrize("arithmetic", ["fastest", "portable"])
def test_rows_of_several_trials_have_the_bits_of_each_alone(arithmetic: str) -> None:
    assert num_different(arithmetic) == 0
    assert num_different("as it comes", MKL_CBWR="AVX2") > 0, "this test cannot fail"


@needs_mkl
def test_what_the_environment_says_stays() -> None:
    assert num_different("fastest", MKL_CBWR="AVX2") > 0


MULTIPLY_IN_A_SLOT = """
import sys, torch
from spectune.trainers.worker.slot import Slot, SlotOptions
Slot("slot", None, SlotOptions(sys.argv[1], "attempt-1", 1.0, cpus=1))
torch.ones(100, 100) @ torch.ones(100, 100)
"""


@needs_mkl
def test_a_slot_pins_its_products_before_the_first(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"} | {"MKL_VERBOSE": "1"}
    command = [sys.executable, "-c", MULTIPLY_IN_A_SLOT, str(tmp_path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    assert f"CNR:{torch.backends.cpu.get_cpu_capability()},STRICT" in told


NARROW = {  # what caps the libraries of a process as a processor without AVX-512 does
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
TRAIN_SOME = """
import sys, torch
from spectune.service.campaign.specification.specification import parse
from spectune.service.driver.assignments import AssignmentMaker
from spectune.trainers.worker.arithmetic import Arithmetic
from spectune.trainers.engines.cohorts import cohort_for
from spectune.trainers.worker.slot import prepare_process
prepare_process(arithmetic=Arithmetic(sys.argv[1]), cpus=1, gpus=0.0)
tasks = (
    {"name": "language_model", "width": 32, "depth": 1, "context": 16, "batch_size": 4, "steps": 4},
    {"name": "matrix_completion", "rows": 30, "columns": 20, "rank": 2, "steps": 4},
)
for task in tasks:
    for precision in ("fp32", "bf16"):
        document = {"name": "n", "task": task, "objective": {"metric": "validation_loss"}, "precision": precision,
                    "arms": [{"optimizer": "muon"}, {"optimizer": "adamw"}], "search": {"points": 1}}
        specification = parse(document)
        maker = AssignmentMaker(specification)
        for arm, extra in enumerate(({"compute_dtype": "bfloat16"}, {})):
            cohort = cohort_for(maker.setting(arm=arm, config={"lr": 0.01, **extra}, seed_index=0), is_alone=False)
            for seat in range(2):
                cohort.admit(seat, maker.setting(arm=arm, config={"lr": 0.01 + seat, **extra}, seed_index=seat))
            cohort.advance({0: 4, 1: 4})
            print([cohort.report([0, 1])[seat]["validation_loss"] for seat in range(2)])
"""


def trained(arithmetic: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"} | variables
    command = [sys.executable, "-c", TRAIN_SOME, arithmetic]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="a processor with AVX-512 stands for both kinds"
)
def test_portable_bits_are_those_of_a_processor_without_avx512() -> None:
    assert trained("portable") == trained("portable", **NARROW)
    assert trained("fastest") != trained("fastest", **NARROW), "this test cannot fail"


@needs_mkl
def test_a_process_that_has_computed_already_cannot_become_portable() -> None:
    script = """
import torch
from spectune.trainers.worker.arithmetic import Arithmetic, UnavailableArithmeticError, pin_arithmetic
torch.ones(3) + 1
try:
    pin_arithmetic(Arithmetic.PORTABLE)
except UnavailableArithmeticError as error:
    print(error)
"""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        script = script.replace("torch.ones", "import os; os.environ['ATEN_CPU_CAPABILITY'] = 'default'; torch.ones")
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert told.startswith("portable arithmetic needs AVX2 instructions, and this process on ")


def test_the_two_tables_of_arithmetics_agree() -> None:
    assert set(ARITHMETICS) == set(Arithmetic) == set(get_args(Specification.model_fields["arithmetic"].annotation))
    assert portable_environment().items() >= PORTABLE_VARIABLES.items()
