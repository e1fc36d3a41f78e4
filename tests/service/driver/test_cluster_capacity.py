"""A campaign whose cluster has no machine for its workers waits, says for what, and pays nothing for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from spectune.service.campaign.model.records import Event
from spectune.service.campaign.specification.sections import ResourcesSection
from spectune.service.driver.cluster_capacity import WAITING, CapacityWait, lacking_capacity, waited_seconds
from spectune.service.errors import LedgerError


@pytest.mark.parametrize(
    ("needs", "machines", "words"),
    [
        ({"cpus": 2}, [{"CPU": 2.0}], None),
        ({"cpus": 1}, [{"CPU": 0.0}, {"CPU": 1.0}], None),
        ({"gpus": 0.3}, [{"CPU": 4.0, "GPU": 0.30000001}], None),
        ({"cpus": 2}, [], "a worker needs a machine with 2 CPUs; the cluster has no machine"),
        ({"cpus": 1}, [{}], "a worker needs a machine with 1 CPU; the only one has 0 CPUs"),
        ({"cpus": 4}, [{"CPU": 2.0}, {"CPU": 3.0}], "the largest of the cluster's 2 has 3 CPUs"),
        (
            {"gpus": 1},
            [{"CPU": 9.0}],
            "with 1 CPU and 1 GPU; the only one has 9 CPUs and 0 GPUs",
        ),
        ({"cpus": 4, "gpus": 1}, [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}], "has 2 CPUs and 1 GPU"),  # never on one
    ],
)
def test_a_worker_fits_on_one_machine_or_the_lack_is_named(
    needs: Mapping[str, Any], machines: Sequence[Mapping[str, float]], words: str | None
) -> None:
    lacking = lacking_capacity(ResourcesSection.model_validate(needs), machines)
    assert (lacking is None) if words is None else words in str(lacking)


class Told:
    """A ledger that keeps what it is told, or is away."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.told: list[tuple[str, str]] = []
        self._is_away = is_away

    def explain_attempt(self, campaign_id: str, attempt: int, *, reason: str, message: str) -> None:
        assert (campaign_id, attempt) == ("c", 2)
        if self._is_away:
            raise LedgerError("away")
        self.told.append((reason, message))


def waiting(ledger: Told, looks: list[list[dict[str, float]]]) -> CapacityWait:
    return CapacityWait(
        ledger,
        "c",
        2,
        resources=ResourcesSection(cpus=2),
        machines=lambda: looks.pop(0) if len(looks) > 1 else looks[0],
    )


@pytest.fixture
def woken() -> threading.Event:
    event = threading.Event()
    event.set()  # nobody sleeps in this test
    return event


def test_the_wait_ends_when_a_machine_comes_and_each_lack_is_told_once(woken: threading.Event) -> None:
    ledger = Told()
    looks: list[list[dict[str, float]]] = [[{"CPU": 0.0}], [{"CPU": 0.0}], [{"CPU": 1.0}], [{"CPU": 2.0}]]
    wait = waiting(ledger, looks)
    wait.wait(is_over=lambda: False, woken=woken)
    assert [reason for reason, _ in ledger.told] == [WAITING, WAITING, "driver_started"]
    assert ledger.told[0][1].startswith("waits for capacity: a worker needs a machine with 2 CPUs")
    assert wait.seconds > 0


def test_a_cluster_that_has_room_is_not_waited_for(woken: threading.Event) -> None:
    ledger = Told()
    wait = waiting(ledger, [[{"CPU": 2.0}]])
    wait.wait(is_over=lambda: False, woken=woken)
    assert (ledger.told, wait.seconds) == ([], 0.0)


def test_a_stop_ends_the_wait_and_a_ledger_that_is_away_does_not(woken: threading.Event) -> None:
    answers = iter([False, False, True])
    waiting(Told(is_away=True), [[]]).wait(is_over=lambda: next(answers), woken=woken)
    assert next(answers, None) is None


def test_the_waits_of_earlier_attempts_are_added_up_also_of_one_that_died_waiting() -> None:
    def event(at: int, attempt: int, reason: str) -> Event:
        return Event(at, at, "attempt_explained", None, {"attempt": attempt, "reason": reason, "message": ""})

    events = [
        event(1000, 1, WAITING),
        event(1500, 1, WAITING),
        event(4000, 1, "driver_started"),
        event(9000, 2, WAITING),
    ]
    assert waited_seconds(events, {1: 8000, 2: 11_000}) == 3.0 + 2.0
    assert waited_seconds(events, {1: 8000}) == 3.0
    assert waited_seconds([], {}) == 0.0
