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
    """Return the first fenced block under a heading."""
    found = re.search(rf"## {heading}\n.*?```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None, f"no such block: {heading}"
    return found.group(1)


def told() -> dict[str, str]:
    """Read the tree: each folder with its phrase."""
    tree: dict[str, str] = {}
    path: list[str] = []
    for line in block_after("The tree").splitlines():
        depth, (name, _, phrase) = (len(line) - len(line.lstrip())) // 4, line.strip().partition("/")
        path = [*path[:depth], name]
        tree["/".join(path)] = phrase.strip()
    return tree


def folders_of_the_packages() -> set[str]:
    """Return the folders that hold what is installed; those of migrations are the ledger's."""
    found = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    names = {path.relative_to(ROOT).as_posix() for path in found if path.name != "__pycache__"}
    return {name for name in names if "migrations" not in name}


def test_the_tree_names_every_folder_with_a_phrase() -> None:
    tree = told()
    assert {name for name in tree if name.split("/")[0] in PACKAGES} == folders_of_the_packages()
    assert all(len(phrase.split()) >= 3 for phrase in tree.values()), tree


def test_every_top_level_folder_is_in_the_tree() -> None:
    ours = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    generated = {"build", "dist", "spectune-data", "spectune.egg-info", "__pycache__"}
    assert {name for name in told() if "/" not in name} == ours - generated


def test_it_is_read_in_a_few_minutes() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 125  # tables apart, nothing has to be scrolled


def test_its_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs" / "guide").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), (page.name, link)


def test_every_picture_is_shown_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs" / "guide").glob("*.md")]
    shown = {
        Path(link).name for page in pages for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    }
    assert {path.name for path in (ROOT / "docs" / "images").iterdir()} <= shown


def test_the_campaign_in_the_readme_can_be_run(tmp_path: Path) -> None:
    campaign = tmp_path / "campaign.yaml"
    campaign.write_text(block_after("A campaign file in ten lines", "yaml"), encoding="utf-8")
    specification = parse(read_document(campaign))
    assert [arm.optimizer for arm in specification.arms] == ["root", "muon"]


def test_the_campaign_in_the_guide_can_be_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "guide" / "campaign-file.md").read_text(encoding="utf-8")
    (document,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    campaign = tmp_path / "campaign.yaml"
    campaign.write_text(document, encoding="utf-8")
    assert parse(read_document(campaign)).warnings() == []


def test_every_example_can_be_run() -> None:
    examples = sorted((ROOT / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        assert parse(read_document(example)).warnings() == [], example.name
