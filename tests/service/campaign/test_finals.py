"""What an arm still needs once its search has ended."""

from __future__ import annotations

from typing import Any

import pytest

from spectune.service.campaign.ending.finals import extra_trials, nearest_the_cut
from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.records import Phase, TrialRecord
from spectune.service.campaign.specification.catalog import Catalog
from spectune.service.campaign.specification.specification import Specification, parse


def trial(number: int, state: TrialState = TrialState.COMPLETED, objective: float | None = None, **changes: Any) -> Any:
    """Make a record; one arm, a point a trial, unless said otherwise."""
    values = {"arm": 0, "point": number, "seed_index": 0, "config": {"lr": number}, "ask": {}, "last_step": 400}
    return TrialRecord(
        number=number,
        state=state,
        reason="",
        message="",
        since=0,
        created_at=0,
        attempt=1,
        num_losses=0,
        objective=objective,
        device_seconds=1.0,
        **{**values, **changes},
    )


@pytest.fixture
def specification(document: dict[str, Any], catalog: Catalog) -> Specification:
    document["search"] = {"points": 32}
    document["stopping"]["audit"] = 3
    document["finals"] = {"keep": 2, "seeds": 3}
    return parse(document, catalog=catalog)


def test_the_best_points_run_again_with_seeds_the_search_has_not_seen(specification: Specification) -> None:
    searched = [trial(number, objective=float(number % 7)) for number in range(0, 20, 2)]
    made = extra_trials(specification, 0, searched)
    assert [(each.point, each.seed_index, each.ask) for each in made] == [
        (point, index, {"phase": Phase.FINAL, "rank": rank}) for rank, point in ((0, 0), (1, 14)) for index in (1, 2, 3)
    ]
    assert [each.number for each in made] == [64, 65, 66, 70, 71, 72]  # those between are the other arm's


def test_seeds_and_numbers_of_the_finals_are_common_to_the_arms_and_apart(specification: Specification) -> None:
    first = extra_trials(specification, 0, [trial(0, objective=1.0), trial(2, objective=2.0)])
    second = extra_trials(specification, 1, [trial(1, arm=1, objective=1.0), trial(3, arm=1, objective=2.0)])
    assert [each.seed_index for each in first] == [each.seed_index for each in second]
    assert not {each.number for each in first} & {each.number for each in second}


def test_what_exists_is_not_made_again(specification: Specification) -> None:
    searched = [trial(0, objective=1.0), trial(2, TrialState.STOPPED, 3.0, last_step=134)]
    made = extra_trials(specification, 0, searched)
    assert [each.ask["phase"] for each in made] == ["final"] * 3 + ["audit"]
    existing = [trial(each.number, TrialState.PENDING, ask=each.ask) for each in made[1:]]
    assert extra_trials(specification, 0, [*searched, *existing]) == made[:1]


def test_where_nothing_completed_there_are_no_finals(specification: Specification) -> None:
    assert extra_trials(specification, 0, [trial(0, TrialState.DIVERGED, 1.0)]) == []


def test_a_search_that_goes_on_has_no_finals_yet(specification: Specification) -> None:
    with pytest.raises(AssertionError, match="must have ended"):
        extra_trials(specification, 0, [trial(0, TrialState.RUNNING, 1.0)])


def test_stopped_trials_nearest_the_cut_are_chosen_from_every_rung_in_turn() -> None:
    values = {0: (100, 5.0), 1: (100, 4.0), 2: (100, 3.0), 3: (300, 2.9), 4: (300, 2.5)}
    stopped = [trial(n, TrialState.STOPPED, value, last_step=step) for n, (step, value) in values.items()]
    chosen = [each.number for each in nearest_the_cut(stopped, minimize=True, num_trials=4)]
    assert chosen == [2, 4, 1, 3]
    assert [each.number for each in nearest_the_cut(stopped, minimize=False, num_trials=2)] == [0, 3]


def test_an_audit_repeats_a_trial_with_its_own_seed(specification: Specification) -> None:
    (audit,) = extra_trials(specification, 0, [trial(8, TrialState.STOPPED, 3.0, seed_index=0, last_step=134)])
    assert (audit.number, audit.point, audit.seed_index) == (64 + 12 + 8, 8, 0)
    assert audit.ask == {"phase": "audit", "of": 8}
