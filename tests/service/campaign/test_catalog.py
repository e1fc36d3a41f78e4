"""The installed catalog: the default spaces fit the optimizers that are there, and a real campaign can be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spectune.search_spaces import DEFAULT_SPACES, default_space
from spectune.search_spaces.preset_rates import PRESET_RATES
from spectune.service.campaign.specification.catalog import installed_catalog
from spectune.service.campaign.specification.specification import parse
from spectune.service.errors import SpecificationError
from spectune.trainers.tasks import PRESETS


@pytest.fixture(scope="module", autouse=True)
def _torch_is_loaded() -> None:
    """Load torch before a test's own time begins."""
    installed_catalog()


def _document(**changes: Any) -> dict[str, Any]:
    return {
        "name": "four optimizers",
        "task": {"name": "matrix_completion", "steps": 200},
        "objective": {"metric": "validation_loss"},
        "arms": [{"optimizer": optimizer} for optimizer in installed_catalog().optimizers],
        "search": {"points": 4},
        "schedule": {"shape": "wsd", "warmup_fraction": 0.02, "decay_fraction": 0.3},
        **changes,
    }


def _pointers(document: dict[str, Any]) -> list[str]:
    with pytest.raises(SpecificationError) as caught:
        parse(document)
    return [problem.pointer for problem in caught.value.problems]


def test_every_optimizer_has_a_default_space_and_every_default_space_an_optimizer() -> None:
    assert set(DEFAULT_SPACES) == set(installed_catalog().optimizers)


def test_the_default_spaces_are_legal_for_their_optimizers() -> None:
    specification = parse(_document())
    assert [arm.search_space for arm in specification.arms] == [DEFAULT_SPACES[arm.name] for arm in specification.arms]
    assert specification.warnings() == []


def test_a_campaign_may_search_over_where_roots_coefficients_are_from() -> None:
    choices = [{"coefficients": {"choice": ["table", "online"]}}, {"coefficients": {"choice": ["table", "onlin"]}}]
    legal, wrong = (_document(arms=[{"optimizer": "root", "space": space}]) for space in choices)
    assert list(parse(legal).arms[0].search_space) == ["coefficients"]
    assert _pointers(wrong) == ["/arms/0/space/coefficients/choice"]


def test_a_real_campaign_survives_the_ledger() -> None:
    specification = parse(_document())
    assert parse(json.loads(json.dumps(specification.document()))) == specification


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"task": {"name": "language_model", "steps": 10, "corpus": "/no/such/folder"}}, "/task/corpus"),
        ({"task": {"name": "matrix_completion", "steps": 10, "rnak": 3}}, "/task/rnak"),
        ({"objective": {"metric": "accuracy"}}, "/objective/metric"),
        ({"schedule": {"shape": "step", "decay_every": 10}}, "/schedule/decay_factor"),
        ({"arms": [{"optimizer": "root", "fixed": {"percentile": 90}}]}, "/arms/0/fixed/percentile"),
        ({"arms": [{"optimizer": "muon", "fixed": {"solver": "sdv"}}]}, "/arms/0/fixed/solver"),
        ({"arms": [{"optimizer": "adamw", "space": {"betas": {"choice": [[0.9, 1]]}}}]}, "/arms/0/space/betas/choice"),
        ({"arms": [{"optimizer": "polargrad", "fixed": {"weight_decay": 0.1}}]}, "/arms/0/space/lr"),
    ],
)
def test_what_optimizers_tasks_and_schedules_refuse_is_told_at_its_place(changes: dict[str, Any], pointer: str) -> None:
    assert _pointers(_document(**changes)) == [pointer]


@pytest.mark.parametrize("preset", PRESET_RATES)
def test_a_preset_with_rates_of_its_own_gives_them_to_the_default_spaces(preset: str) -> None:
    task = {"name": PRESETS[preset][0], "preset": preset, "steps": 100}
    specification = parse(_document(task=task))
    for arm in specification.arms:
        assert arm.search_space == default_space(arm.name, preset)
    assert specification.warnings() == []
    again = parse(json.loads(json.dumps(specification.document())))  # which names the sizes, and the preset no more
    assert again == specification
