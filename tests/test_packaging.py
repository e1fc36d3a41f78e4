"""What is installed: one name, optimizers that need torch alone, and a command that names the extra it lacks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OUR_FOLDERS = ("optimizers", "search_spaces", "service", "trainers")


def names_of_extras() -> set[str]:
    """Return the import names of what the extra `service` installs."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    import_names = {"pyyaml": "yaml", "scikit-learn": "sklearn", "prometheus-client": "prometheus_client"}
    names = [each.split(">")[0].split("=")[0].split("[")[0] for each in declared["service"]]
    return {import_names.get(name, name.replace("-", "_")) for name in names}


def run_without_extras(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that cannot import what only the extra `service` installs."""
    script = f"import sys\nsys.modules.update(dict.fromkeys({sorted(names_of_extras())}))\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_the_optimizers_need_torch_alone() -> None:
    assert {"ray", "mlflow", "typer", "pydantic", "scipy", "yaml"} <= names_of_extras()
    done = run_without_extras(
        "import torch\n"
        "from spectune.optimizers import Muon, build_optimizer\n"
        "model = torch.nn.Linear(8, 4)\n"
        "optimizer = build_optimizer(torch.nn.Sequential(model, torch.nn.Linear(4, 4)), 'muon', lr=0.1)\n"
        "model(torch.ones(2, 8)).sum().backward()\n"
        "optimizer.step()\n"
        "print('stepped')\n"
    )
    assert (done.returncode, done.stdout) == (0, "stepped\n"), done.stderr


def test_a_command_without_its_extra_names_it() -> None:
    done = run_without_extras("from spectune.service.cli import main\nmain()\n")
    assert done.returncode == 2
    assert done.stderr.startswith("spectune: this command needs the extra 'service': pip install 'spectune[service]' (")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", OUR_FOLDERS)
def test_a_users_modules_of_our_folders_names_change_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("raise AssertionError('this is the user\\'s')", encoding="utf-8")
    command = [str(Path(sys.executable).parent / "spectune"), "--version"]
    for variables in ({"PYTHONPATH": str(tmp_path)}, {}):
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=variables, check=False)
        assert (done.returncode, done.stdout.split()[0]) == (0, "spectune"), done.stderr


def tracked_files(*folders: str) -> list[str]:
    """Return the files that git tracks, links included."""
    command = ["git", "ls-files", *folders]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.slow
def test_a_wheel_holds_one_package_with_everything_in_it(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build in the checkout itself would mix in what an earlier one has left
    for name in tracked_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"spectune"}
    needed = {name for name in tracked_files(*OUR_FOLDERS) if not name.endswith(".mako")}  # a template for authors
    assert {f"spectune/{name}" for name in needed} <= set(names)
