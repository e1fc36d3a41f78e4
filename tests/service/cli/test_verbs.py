"""Verbs are listed by what they say of themselves, and only the one that is used is imported."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from spectune.service.cli.application import application
from spectune.service.cli.verbs import VERBS

HEAVY = ("torch", "ray", "optuna", "sqlalchemy", "alembic", "mlflow", "scipy", "numpy", "yaml")


@pytest.mark.parametrize("name", VERBS)
def test_help_lists_a_verb_with_its_own_first_sentence(name: str) -> None:
    command = VERBS[name].load(name)
    assert (command.name, inspect.cleandoc(command.help).split("\n\n")[0]) == (name, VERBS[name].sentence)


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_explains_itself(name: str) -> None:
    found = CliRunner().invoke(application, [name, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert found.exit_code == 0, found.output
    assert VERBS[name].sentence in found.output


def test_a_mistyped_verb_is_told_the_nearest() -> None:
    found = CliRunner().invoke(application, ["lits"])
    assert found.exit_code == 2
    assert "'list'" in found.output


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list", "--help"], ["show", "--help"]])
def test_what_only_prints_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from spectune.service.cli.application import application\n"
        "try:\n"
        f"    application({arguments!r})\n"
        "finally:\n"
        f"    print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "[]"), done.stdout
