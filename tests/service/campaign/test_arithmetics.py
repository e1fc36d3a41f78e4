"""Which arithmetic a campaign asks for: its default, what is refused, and what a stored document means."""

from __future__ import annotations

from typing import Any

import pytest

from spectune.service.campaign.specification.catalog import Catalog
from spectune.service.campaign.specification.specification import is_portable_foreseen, parse, restore
from spectune.service.errors import SpecificationError

Document = dict[str, Any]


@pytest.mark.parametrize(
    ("changes", "is_deterministic", "expected"),
    [
        ({}, False, "fastest"),
        ({"arithmetic": "portable"}, False, "portable"),
        ({"arithmetic": None}, False, "fastest"),
        ({}, True, "portable"),
        ({"resources": {"gpus": 0.5}}, True, "fastest"),
        ({"arithmetic": "fastest"}, True, "fastest"),
    ],
)
def test_a_deterministic_campaign_is_portable_unless_told(
    document: Document, catalog: Catalog, changes: Document, is_deterministic: bool, expected: str
) -> None:
    document |= changes
    document["search"]["deterministic"] = is_deterministic
    specification = parse(document, catalog=catalog)
    assert specification.arithmetic == expected
    assert is_portable_foreseen(document) == (expected == "portable")
    assert restore(specification.document()) == specification
    warned = any(problem.pointer == "/arithmetic" for problem in specification.warnings())
    assert warned == (is_deterministic and expected == "fastest")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arithmetic": "portabel"}, "did you mean 'portable'?"),
        ({"arithmetic": 3}, "unknown arithmetic"),
        ({"arithmetic": ["portable"]}, "unknown arithmetic"),
        ({"arithmetic": "portable", "resources": {"gpus": 0.5}}, "only processors have a portable arithmetic"),
    ],
)
def test_an_arithmetic_that_cannot_be_had_is_refused(
    document: Document, catalog: Catalog, changes: Document, words: str
) -> None:
    with pytest.raises(SpecificationError) as caught:
        parse(document | changes, catalog=catalog)
    (problem,) = caught.value.problems
    assert problem.pointer == "/arithmetic"
    assert words in problem.message


def test_a_document_from_before_arithmetics_had_names_is_fastest(document: Document, catalog: Catalog) -> None:
    document["search"]["deterministic"] = True
    stored = parse(document, catalog=catalog).document()
    del stored["arithmetic"]
    assert restore(stored).arithmetic == "fastest"
