"""The glossary defines every noun of the public API, once and in one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| \*\*(?P<word>[^*]+)\*\* \| (?P<meaning>.+) \|$", re.MULTILINE)
VERBS = {"cancel", "extend", "pause", "resume", "retry", "stop"}
# Nouns that mean what they mean everywhere
ORDINARY = {
    "catalogue",
    "curve",
    "error",
    "estimate",
    "health",
    "list",
    "log",
    "metric",
    "optimizer",
    "page",
    "problem",
}
PARTS = {"failed", "field", "front", "healthz", "progress", "readyz", "state", "summary", "tracking", "v1", "completed"}
SAME = {"arm plan": "plan", "set aside": "dead letter", "set aside list": "dead letter"}


def glossary() -> dict[str, str]:
    """Return the meaning of each word."""
    rows = ROW.findall((ROOT / "docs" / "guide" / "glossary.md").read_text(encoding="utf-8"))
    assert len(dict(rows)) == len(rows), "a word is defined twice"
    return dict(rows)


def nouns_of_the_api() -> set[str]:
    """Return the words of the paths and of the schemas, in the singular."""
    document = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    phrases = {part for path in document["paths"] for part in re.split("[/:]", path) if part and part[0] != "{"}
    phrases |= {re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower() for name in document["components"]["schemas"]}
    return {_singular(phrase.replace("-", " ")) for phrase in phrases}


def _singular(phrase: str) -> str:
    return re.sub(r"(?<=[a-rt-z])s$", "", phrase)


def test_every_noun_of_the_api_is_defined() -> None:
    known = set(glossary()) | VERBS | ORDINARY | PARTS
    nouns = {SAME.get(noun, noun) for noun in nouns_of_the_api()}
    assert len(nouns) > 20
    unknown = {noun for noun in nouns if noun not in known and not all(_singular(w) in known for w in noun.split())}
    assert unknown == set()


def test_each_meaning_is_one_sentence() -> None:
    for word, meaning in glossary().items():
        assert meaning.endswith("."), word
        assert len(meaning.split()) <= 40, word
    assert list(glossary()) == sorted(glossary())
