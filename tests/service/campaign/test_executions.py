"""What is said of the processors that computed a campaign."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spectune.service.campaign.analysis.executions import arithmetic_notes
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.records import TrialRecord
from spectune.service.campaign.specification.catalog import Catalog
from spectune.service.campaign.specification.specification import parse

WIDE = {"device": "A", "instructions": "AVX512", "threads": 1, "alone": True}
NARROW = {"device": "B", "instructions": "AVX2", "threads": 1, "alone": True}
GPU = {"device": "H", "instructions": "", "threads": 1, "alone": True}


def trial(arm: int, *executions: dict[str, Any]) -> TrialRecord:
    record: dict[str, Any] = dict.fromkeys(("number", "point", "seed_index", "since", "created_at", "num_losses"), 0)
    record |= {"config": {}, "ask": {}, "state": TrialState.COMPLETED, "reason": "", "message": "", "last_step": 1}
    return TrialRecord(**record, arm=arm, attempt=1, objective=1.0, device_seconds=1.0, executions=executions)


def test_the_machines_are_named_and_arms_on_different_ones_are_warned_of(
    document: dict[str, Any], catalog: Catalog
) -> None:
    specification = parse(document, catalog=catalog)
    assert arithmetic_notes(specification, [trial(0), trial(1)]) == []
    (one,) = arithmetic_notes(specification, [trial(0, WIDE), trial(1, WIDE)])
    assert one.startswith("computed on A (AVX512): ")
    (mixed,) = arithmetic_notes(specification, [trial(0, WIDE, NARROW), trial(1, NARROW), trial(1, WIDE)])
    assert mixed.startswith("computed on A (AVX512) and B (AVX2): ")
    named, apart = arithmetic_notes(specification, [trial(0, WIDE), trial(1, GPU)])
    assert named.startswith("computed on A (AVX512) and H: ")
    assert apart.startswith("the arms did not have the same processors")
    portable = replace_arithmetic(document, catalog)
    (note,) = arithmetic_notes(portable, [trial(0, WIDE), trial(1, NARROW)])
    assert note.startswith("portable arithmetic")


def replace_arithmetic(document: dict[str, Any], catalog: Catalog) -> Any:
    return parse(document | {"arithmetic": "portable"}, catalog=catalog)


def test_a_trial_that_moved_is_of_both_machines(document: dict[str, Any], catalog: Catalog) -> None:
    moved = replace(trial(0), executions=(WIDE, NARROW))
    (note,) = arithmetic_notes(parse(document, catalog=catalog), [moved])
    assert "A (AVX512) and B (AVX2)" in note
