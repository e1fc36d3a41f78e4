"""On what a campaign's trials were computed, and what a reader must know of it to trust the last digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spectune.service.campaign.model.records import TrialRecord
from spectune.service.campaign.specification.specification import Specification


def machine_name(execution: Mapping[str, Any]) -> str:
    """Return the name of a processor with its instructions, or of a GPU."""
    instructions = execution["instructions"]
    return f"{execution['device']} ({instructions})" if instructions else str(execution["device"])


def arithmetic_notes(specification: Specification, trials: Sequence[TrialRecord]) -> list[str]:
    """Return what a reader must know of the processors and GPUs that computed a campaign's trials."""
    names = sorted({machine_name(each) for trial in trials for each in trial.executions})
    if not names:
        return []
    if specification.arithmetic == "portable":
        return ["portable arithmetic: every x86-64 processor with AVX2 gives these numbers to the last bit"]
    notes = [
        f"computed on {' and '.join(names)}: another kind of processor or GPU rounds differently, and a training may "
        "carry that into the digits shown (`spectune replay` measures it; `arithmetic: portable` avoids it)"
    ]
    if len(names) > 1 and _are_arms_apart(trials):
        notes.append(
            "the arms did not have the same processors or GPUs: a part of their differences may come from that"
        )
    return notes


def _are_arms_apart(trials: Sequence[TrialRecord]) -> bool:
    machines: dict[int, set[str]] = {}
    for trial in trials:
        machines.setdefault(trial.arm, set()).update(machine_name(each) for each in trial.executions)
    return len(set(map(frozenset, machines.values()))) > 1
