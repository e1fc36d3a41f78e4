"""The tree of errors is the one that is drawn, and nothing is built or set while modules are imported."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from spectune.service import errors
from spectune.service.errors import ServiceError

SERVICE = Path(errors.__file__).parent
_CONFIGURES = ("setLevel", "basicConfig", "Lock", "RLock", "Condition")


def drawn() -> dict[str, str]:
    """Read the tree in the docstring: each class with its parent."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│├└─ ]*)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            path = [*path[:depth], found[2]]
            parents[found[2]] = path[-2] if depth else ""
    return parents


def subclasses(of: type[ServiceError]) -> dict[str, str]:
    found = {}
    for each in of.__subclasses__():
        if each.__module__ == errors.__name__:
            found |= {each.__name__: of.__name__, **subclasses(each)}
    return found


def test_every_error_stands_in_the_tree_with_its_parent() -> None:
    true = {**subclasses(ServiceError), "ServiceError": ""}
    assert drawn() == true


def modules() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in SERVICE.rglob("*.py")}


def test_no_other_file_defines_an_error_of_the_service() -> None:
    known = {*subclasses(ServiceError), "ServiceError"}
    elsewhere = [
        (path.name, node.name)
        for path, module in modules().items()
        if path.name != "errors.py"
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef) and known & {ast.unparse(base) for base in node.bases}
    ]
    assert elsewhere == []


def test_importing_configures_nothing_and_builds_no_lock() -> None:
    at_import = [
        (path.name, ast.unparse(call))
        for path, module in modules().items()
        if "migrations" not in path.parts
        for statement in module.body
        if isinstance(statement, ast.Expr | ast.Assign | ast.AnnAssign | ast.AugAssign)
        for call in ast.walk(statement)
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in _CONFIGURES
    ]
    assert at_import == []
