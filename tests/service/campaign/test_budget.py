"""Budgets: when they are spent, and what does not count."""

from __future__ import annotations

import pytest

from spectune.service.campaign.ending.budget import Limit, Spending, exhausted, wall_seconds
from spectune.service.campaign.model.outcomes import Mode
from spectune.service.campaign.specification.sections import BudgetSection

TARGETS = [
    ("minimize", 2.0, True),
    ("minimize", 2.1, False),
    ("minimize", 1.0, True),
    ("maximize", 2.0, True),
    ("maximize", 1.9, False),
    ("maximize", 3.0, True),
]


@pytest.mark.parametrize(
    ("spending", "limit"),
    [
        (Spending(9.9, 19.9), None),
        (Spending(10.0, 0.0), Limit.WALL_SECONDS),
        (Spending(0.0, 20.0), Limit.DEVICE_SECONDS),
    ],
)
def test_an_amount_is_spent_once_it_is_reached(spending: Spending, limit: Limit | None) -> None:
    found = exhausted(BudgetSection(wall_seconds=10.0, device_seconds=20.0), spending)
    assert (found.limit if found else None) == limit


def test_without_limits_nothing_is_ever_spent() -> None:
    assert exhausted(BudgetSection(), Spending(1e9, 1e9, 0.0)) is None


@pytest.mark.parametrize(("mode", "best", "is_reached"), TARGETS)
def test_a_target_is_reached_by_a_report_as_good(mode: Mode, best: float, is_reached: bool) -> None:
    found = exhausted(BudgetSection(), Spending(0, 0, best), target=2.0, mode=mode)
    assert (found is not None) == is_reached
    if found:
        assert found.limit is Limit.TARGET
        assert found.message == f"a report reached {best:g}; the target is 2"


def test_the_reason_says_how_much_was_spent() -> None:
    found = exhausted(BudgetSection(device_seconds=20.0), Spending(0.0, 20.43))
    assert found is not None
    assert found.message == "20.43 of 20 s of device time are spent"


def test_neither_queue_nor_pause_is_wall_time() -> None:
    assert wall_seconds([(1_000, 4_000), (100_000, 101_000), (200_000, None)], now=200_500) == 4.5
    assert wall_seconds([], now=5) == 0
