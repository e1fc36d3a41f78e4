"""Promised accuracy holds whatever the switches of the process say, and the switches stay as they are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from spectune.optimizers.diagnostics import orthogonality_error
from spectune.optimizers.polar.polar_factor import polar_factor
from spectune.optimizers.polar.solvers import SOLVERS
from tests.optimizers.references import gaussian

BOUNDS = {"svd": 2e-6, "qdwh": 2e-6, "zolo_pd": 2e-6}


def errors(compute_dtype="auto"):
    """Return by solver how far float32 is from float64; quintics amplify rounding by up to their slope."""
    matrix = gaussian(96, 64, dtype=torch.float32)
    found = {}
    for solver in SOLVERS:
        exact = polar_factor(matrix.double(), solver=solver)
        given = polar_factor(matrix, solver=solver, compute_dtype=compute_dtype)
        found[solver] = ((given.double() - exact).norm() / 8).item()
    return found


def assert_accurate(compute_dtype="auto"):
    found = errors(compute_dtype)
    assert all(error < BOUNDS.get(solver, 2e-5) for solver, error in found.items()), found


@pytest.fixture
def precision():
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("allowed", ["highest", "high", "medium"])
@pytest.mark.parametrize("compute_dtype", ["auto", "float32"])
def test_accuracy_does_not_depend_on_the_precision_of_products(precision, allowed, compute_dtype):
    precision(allowed)
    assert_accurate(compute_dtype)
    assert torch.get_float32_matmul_precision() == allowed
    orthogonal = polar_factor(gaussian(64, 96, dtype=torch.float32), solver="svd")
    assert orthogonality_error(orthogonal) < 1e-5


def test_accuracy_does_not_depend_on_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_accurate()
        assert torch.is_autocast_enabled("cpu")
        with pytest.raises(ValueError, match="a matrix or a batch"):
            polar_factor(torch.ones(3), solver="svd")
        assert torch.is_autocast_enabled("cpu")


SET_APART = """
import torch
{setting} = "bf16"
from tests.optimizers.test_switches import assert_accurate
assert_accurate()
assert {setting} == "bf16"
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        "torch.backends.fp32_precision",
        "torch.backends.mkldnn.fp32_precision",
        "torch.backends.mkldnn.matmul.fp32_precision",
    ],
)
def test_accuracy_does_not_depend_on_todays_switches_either(setting):
    """In a process of its own: torch refuses to go back from these to the older switch."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", SET_APART.format(setting=setting)]
    subprocess.run(command, check=True, timeout=120, env=environment)


def test_deterministic_algorithms_and_a_default_dtype_change_nothing():
    expected = errors()
    torch.use_deterministic_algorithms(True)
    torch.set_default_dtype(torch.float64)
    try:
        assert errors() == expected
    finally:
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)
