"""Names: a class has a name of its own, and no module of a room has another's."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("optimizers", "search_spaces", "trainers", "service")


def classes() -> dict[str, list[str]]:
    """Return where each class of the packages is defined, by its name."""
    found: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    found[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_a_class_name_is_used_once() -> None:
    found = classes()
    assert len(found) > 300
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
