"""The README is true: its tree is the tree, its campaign can be run."""

from __future__ import annotations

import re
from pathlib import Path

from spectune.service.campaign.specification.specification import parse
from spectune.service.campaign_file import read_document

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ("optimizers", "search_spaces", "trainers", "service")


def block_after(heading: str, language: str = "") -> str:
    """Give the first fenced block under a heading."""
    found = re.search(rf"## {heading}\n.*?```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None, f"no such block: {heading}"
    return found.group(1)


def told() -> dict[str, set[str]]:
    """Read the tree: for each folder of the packages, the files that stand under it."""
    tree: dict[str, set[str]] = {}
    path: list[str] = []
    for line in block_after("The tree").splitlines():
        depth, words = (len(line) - len(line.lstrip())) // 4, line.split()
        if words[0].endswith("/"):
            path = [*path[:depth], words[0].rstrip("/")]
            tree["/".join(path)] = set()
        else:
            tree["/".join(path[:depth])] |= set(words)
    return {folder: files for folder, files in tree.items() if folder.split("/")[0] in PACKAGES}


def test_the_tree_names_every_folder_and_file_of_the_packages() -> None:
    true: dict[str, set[str]] = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        folder = path.parent.relative_to(ROOT).as_posix()
        if "migrations" not in folder:
            true.setdefault(folder, set()).update({path.stem} - {"__init__"})
    assert told() == true


def test_every_top_level_folder_has_its_phrase() -> None:
    folders = {line.split()[0] for line in block_after("The tree").splitlines() if not line.startswith(" ")}
    ours = {path.name + "/" for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    generated = {"build/", "dist/", "spectune-data/", "spectune.egg-info/", "__pycache__/"}
    assert folders == ours - generated


def test_the_campaign_in_the_readme_can_be_run(tmp_path: Path) -> None:
    campaign = tmp_path / "campaign.yaml"
    campaign.write_text(block_after("A campaign file in ten lines", "yaml"), encoding="utf-8")
    specification = parse(read_document(campaign))
    assert [arm.optimizer for arm in specification.arms] == ["root", "muon"]


def test_every_example_can_be_run() -> None:
    examples = sorted((ROOT / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        assert parse(read_document(example)).warnings() == [], example.name


def test_the_pictures_exist() -> None:
    for path in re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (ROOT / path).exists(), path
