"""A user's code that raises, exits or lies fails its own trials, and nobody else notices."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from spectune.service.ledger import Ledger
from tests.integration.conftest import SPECTUNE, Outcome, Run

pytestmark = pytest.mark.slow

TASK = """
import os
from dataclasses import dataclass
from typing import ClassVar
import torch
from torch import nn
from spectune.trainers.tasks import TaskOptions, option


@dataclass(frozen=True)
class Weird(TaskOptions):
    mischief: str = option("none", "What goes wrong, from step 3 on.")
    name: ClassVar[str] = "weird"

    def build(self, generator):
        model = nn.Linear(4, 3)
        model.weight.data.normal_(generator=generator)
        return model

    def batch(self, step, seed):
        if step >= 3 and self.mischief == "surrogate":
            raise RuntimeError("cannot read " + os.fsdecode(b"caf\\xe9.bin"))
        if step >= 3 and self.mischief == "megabytes":
            raise RuntimeError("x" * 30_000_000)
        if step >= 3 and self.mischief == "exit":
            raise SystemExit(3)
        if step >= 3 and self.mischief == "die":
            os._exit(9)
        return (torch.ones(2, 4),)

    def loss(self, model, batch):
        return model(batch[0]).square().mean()

    def evaluate(self, model, seed):
        height = float(model.weight.square().sum())
        self_is_late = _calls.append(height) or len(_calls) > 2
        return {"validation_loss": None if self.mischief == "none_later" and self_is_late else height}


_calls = []
"""


def campaign(mischief: str) -> dict[str, Any]:
    return {
        "name": "weird",
        "task": {"name": "weird_task:Weird", "steps": 9, "mischief": mischief},
        "objective": {"metric": "validation_loss", "every_steps": 3},
        "arms": [{"optimizer": "adamw", "space": {"lr": {"log_uniform": [0.001, 0.01]}}}],
        "search": {"sampler": "random", "points": 2},
        "resources": {"members": 1},
    }


def run(folder: Path, mischief: str) -> Outcome:
    return Run(campaign(mischief), folder, PYTHONPATH=with_task(folder / "code", TASK)).finish()


def with_task(folder: Path, source: str) -> str:
    """Write the module of a task, and return the search path with which it is found."""
    folder.mkdir(exist_ok=True)
    (folder / "weird_task.py").write_text(source, encoding="utf-8")
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def failures(outcome: Outcome) -> list[tuple[str, str]]:
    with Ledger.at(outcome.data.ledger) as ledger:
        newest = ledger.campaigns()[0]
        return [(str(trial.state), trial.message) for trial in ledger.trials(newest.campaign_id)]


@pytest.mark.parametrize(
    ("mischief", "words"),
    [
        ("surrogate", r"RuntimeError: cannot read caf\udce9.bin"),
        ("megabytes", "[... cut: the text had "),
        ("exit", "SystemExit: 3"),
        ("die", "The actor is dead because its worker process has died."),
        ("none_later", "Weird.evaluate gave None for validation_loss at step "),
    ],
)
def test_the_trial_fails_with_its_reason(tmp_path: Path, mischief: str, words: str) -> None:
    bad = run(tmp_path, mischief)
    found = failures(bad)
    assert [state for state, _ in found] == ["FAILED"] * 2, found
    for _, message in found:
        assert words in message
        assert len(message.encode()) < 70_000
    if mischief != "surrogate":  # which once kept every later campaign from being recorded
        return
    good = run(tmp_path, "none")
    assert good.exit_status == 0, good.stderr
    assert good.document["state"] == "SUCCEEDED"


def test_a_module_that_parses_arguments_is_refused_in_our_words(tmp_path: Path) -> None:
    path = with_task(tmp_path / "code", "import argparse\nargparse.ArgumentParser().parse_args()\n" + TASK)
    (tmp_path / "campaign.json").write_text(json.dumps(campaign("none")))
    command = [SPECTUNE, "run", str(tmp_path / "campaign.json"), "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, check=False
    )
    assert done.returncode == 2
    assert "importing weird_task raised SystemExit(2)" in done.stderr
    assert "usage:" not in done.stdout + done.stderr
    assert not (tmp_path / "data" / "campaigns").exists()


PRINTS = TASK.replace(
    "        return (torch.ones(2, 4),)",
    "        if step == 4:\n"
    "            print('printed by Python', flush=True)\n"
    "            os.system('echo printed by a child')\n"
    "            logging.warning('printed by logging')\n"
    "        return (torch.ones(2, 4),)",
).replace("import os\n", "import logging\nimport os\n", 1)


def test_what_code_prints_is_kept_and_shown_by_trial(tmp_path: Path) -> None:
    variables = {"PYTHONPATH": with_task(tmp_path / "code", PRINTS)}
    with TemporaryDirectory(prefix="s", dir="/tmp") as short:  # for sockets
        outcome = Run(campaign("none"), tmp_path, RAY_TMPDIR=short, **variables).finish()
        assert list(Path(short).glob("spectune-*")) != []
        assert list(Path(short).glob("spectune-*/*")) == [], "a session of ours is left"
    assert outcome.exit_status == 0, outcome.stderr
    name, where = outcome.document["campaign_id"], ["--data-dir", str(outcome.data.root)]

    def logs(*arguments: str) -> str:
        command = [SPECTUNE, "logs", name, *arguments, *where]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    for trial in (0, 1):
        of_trial = logs("--trial", str(trial))
        assert f"trial {trial} ==" in of_trial
        for words in ("printed by Python", "printed by a child", "printed by logging"):
            assert of_trial.count(words) == 1, of_trial
    assert "trial 0 ==" in logs()
    assert "trial 1 ==" in logs()
