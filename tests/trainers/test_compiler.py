"""A worker is spared torch's compiler, and what is spared changes no number."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from spectune.optimizers import build_optimizer
from spectune.trainers.worker.compiler import leave_compiler_unloaded

_MAKES_AN_OPTIMIZER = """
import sys, torch
from spectune.optimizers import build_optimizer
from spectune.trainers.worker.compiler import leave_compiler_unloaded
if {is_left}: leave_compiler_unloaded()
model = torch.nn.Linear(4, 4)
optimizer = build_optimizer(model, "muon", lr=0.1)
model(torch.ones(2, 4)).sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_left", [True, False])
def test_an_optimizer_is_made_without_the_compiler(is_left: bool) -> None:
    """With False it shows that the check can fail: torch would load its compiler."""
    script = _MAKES_AN_OPTIMIZER.format(is_left=is_left)
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(not is_left)


@pytest.mark.slow
def test_a_task_may_still_compile_its_loss() -> None:
    leave_compiler_unloaded()
    model = torch.nn.Linear(4, 4)
    optimizer = build_optimizer(model, "muon", lr=0.1)
    compiled = torch.compile(lambda given: model(given).square().sum(), backend="eager")
    compiled(torch.ones(2, 4)).backward()
    before = model.weight.detach().clone()
    optimizer.step()
    optimizer.zero_grad()
    assert not torch.equal(model.weight, before)
