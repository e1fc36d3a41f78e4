"""A user's own task: found by name, and refused with class and method where it cannot be one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectune.service.campaign.specification.catalog import RefusedOptionError, installed_catalog
from spectune.trainers import Schedule, SoloTrial, TaskOptionError, TrialSetting, task_from_options
from spectune.trainers.engines.fusibility import fusion_problem
from spectune.trainers.tasks.own import rehearse

EXAMPLE = Path(__file__).parents[3] / "examples" / "own_task.py"
NAME = "own_task:Rosenbrock"


@pytest.fixture(autouse=True)
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on Python's path with the example in it; what is imported from it is forgotten afterwards."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own_task.py").write_text(EXAMPLE.read_text())
    monkeypatch.syspath_prepend(str(folder))
    known = set(sys.modules)
    yield folder
    for name in set(sys.modules) - known:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def with_line(folder: Path, old: str, new: str) -> str:
    """Write the example with one thing changed, and give its class's name."""
    text = EXAMPLE.read_text()
    assert old in text
    (folder / "changed_task.py").write_text(text.replace(old, new))
    return "changed_task:Rosenbrock"


def test_the_example_is_short_and_trains() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 40
    task = task_from_options(NAME, {"size": 6, "gradient_noise": "spikes"})
    rehearse(task, NAME)
    assert fusion_problem(task) is None
    trial = SoloTrial(TrialSetting(task, "muon", {"lr": 0.02}, Schedule("cosine"), 40, seed=1, data_seed=2))
    before = trial.report()["validation_loss"]
    trial.advance(40)
    assert trial.report()["validation_loss"] < 0.9 * before


def test_its_options_are_checked_and_filled_in_as_those_of_any_task() -> None:
    described = installed_catalog().describe_task(NAME, {"size": 6})
    assert described.options["size"] == 6
    assert described.options["gradient_noise"] == "none"
    with pytest.raises(RefusedOptionError, match="size: must be at least 2: got 1"):
        installed_catalog().describe_task(NAME, {"size": 1})
    with pytest.raises(RefusedOptionError, match="did you mean 'size'"):
        installed_catalog().describe_task(NAME, {"sise": 1})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dataclass(frozen=True)", "dataclass(frozen=False)", "raised TypeError: cannot inherit non-frozen"),
        ("frozen=True)\nclass Rosenbrock(TaskOptions)", "frozen=False)\nclass Rosenbrock", "must be frozen"),
        (
            "size: int = option(8,",
            "size: tuple[int] = option((8,),",
            "option size of Rosenbrock must have a default",
        ),
        ("def evaluate", "def assess", "the class Rosenbrock lacks the method evaluate"),
        ("step: int, seed: int", "step: int", r"Rosenbrock\.batch must take \(self, step, seed\)"),
        (".mean()", "", r"Rosenbrock\.loss must give a scalar, gave a tensor of shape \(8, 7\)"),
        (".mean()", ".mean().item()", r"Rosenbrock\.loss must give a scalar, gave "),
        (".mean()", ".mean().detach()", r"Rosenbrock\.loss must depend on the model's parameters"),
        ("model.weight[:, 1:]", "model.wait[:, 1:]", r"Rosenbrock\.loss raised AttributeError"),
        ('{"validation_loss"', '{"height"', r"Rosenbrock\.evaluate gives \['height'\], while metrics promises"),
        (
            '= "rosenbrock"\n',
            '= "rosenbrock"\n    batch_is_fixed = True\n',
            r"Rosenbrock\.batch must give one batch for all steps where batch_is_fixed says so",
        ),
        ("        return start\n", "", r"Rosenbrock\.build must give a module with parameters, gave None"),
        ("@dataclass(frozen=True)\nclass Rosenbrock(TaskOptions)", "class Rosenbrock", "is no dataclass"),
        (
            "from spectune.trainers.tasks import TaskOptions",
            "raise OSError('gone')\nfrom spectune.trainers.tasks import TaskOptions",
            "importing changed_task raised OSError: gone",
        ),
        (
            "from spectune.trainers.tasks import TaskOptions",
            "import argparse\nargparse.ArgumentParser().parse_args(['-x'])\n"
            "from spectune.trainers.tasks import TaskOptions",
            r"importing changed_task raised SystemExit\(2\)",
        ),
        (
            "from spectune.trainers.tasks import TaskOptions",
            "raise KeyboardInterrupt\nfrom spectune.trainers.tasks import TaskOptions",
            "importing changed_task raised KeyboardInterrupt",
        ),
        (".mean()", ".mean() if exit(1) else 0", r"Rosenbrock\.loss raised SystemExit\(1\)"),
        (
            '= "rosenbrock"\n',
            '= "rosenbrock"\n\n    def __post_init__(self):\n        raise ValueError("never")\n',
            "the task raised ValueError: never",
        ),
        (
            '= "rosenbrock"\n',
            '= "rosenbrock"\n\n    def check(self):\n        raise SystemExit("never")\n',
            r"the task raised SystemExit\(never\)",
        ),
    ],
)
def test_a_class_that_is_no_task_is_refused_by_class_and_method(
    importable: Path, old: str, new: str, message: str
) -> None:
    name = with_line(importable, old, new)
    with pytest.raises(RefusedOptionError, match=message) as caught:
        installed_catalog().describe_task(name, {})
    assert (caught.value.option, caught.value.value) == ("name", name)


def test_what_a_module_prints_while_it_is_imported_is_not_shown(
    importable: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A module that parses arguments printed its own usage, under the name of our command."""
    name = with_line(
        importable,
        "from spectune.trainers.tasks import TaskOptions",
        "print('hello')\nimport argparse\nargparse.ArgumentParser().parse_args(['--no-such'])",
    )
    with pytest.raises(TaskOptionError):
        task_from_options(name, {})
    assert capfd.readouterr() == ("", "")


def test_numbers_of_other_types_pass_the_rehearsal(importable: Path) -> None:
    name = with_line(importable, "(torch.ones(()),)).item()}", "(torch.ones(()),)).numpy()}")
    rehearse(task_from_options(name, {}), name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("spectune.service.app:Thing", "is Spectune's own"),
        ("spectune.optimizers.rules.muon:Muon", "is Spectune's own"),
        ("trainers_of_mine.tasks:Thing", "no module 'trainers_of_mine' can be imported"),
        ("nowhere_at_all:Thing", "no module 'nowhere_at_all' can be imported"),
        ("own_task:Thing", "the module own_task has no Thing"),
        ("own_task:", "is written package.module:ClassName"),
        (":Thing", "is written package.module:ClassName"),
        ("own_task:Rosenbrock.loss", "is written package.module:ClassName"),
        ("own_task:nn", "is no dataclass"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name: str, message: str) -> None:
    with pytest.raises(TaskOptionError, match=message):
        task_from_options(name, {})


def test_a_loss_that_looks_at_values_is_told_to_be_unfusable(importable: Path) -> None:
    name = with_line(
        importable, "        here, following", "        assert model.weight.sum().item() < 1e9\n        here, following"
    )
    assert fusion_problem(task_from_options(name, {})) == (
        "the loss uses .item() or branches on a tensor's value (aten::_local_scalar_dense)"
    )


def test_an_operator_without_a_rule_is_named(importable: Path) -> None:
    name = with_line(importable, "return (100.0 *", "return torch.histc(model.weight.detach()).sum() * 0.0 + (100.0 *")
    problem = fusion_problem(task_from_options(name, {}))
    assert problem is not None
    assert "aten::histc" in problem
