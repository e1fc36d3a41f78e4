"""What is decided is on disk before anybody acts on it; when that cannot be done, every slot is let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.driver.arms import make_arms
from spectune.service.driver.assignments import AssignmentMaker
from spectune.service.driver.decision import Decision
from spectune.service.driver.event_loop import MAX_BARREN_LOSSES, EventLoop
from spectune.service.driver.scheduler import Scheduler
from spectune.service.driver.slot_capacity import SlotCapacity
from spectune.service.driver.stop_kinds import StopKind
from spectune.service.driver.writer import Writer
from spectune.service.errors import FencedError, LedgerError
from spectune.service.ledger import Ledger, ServiceLedger
from spectune.service.ledger.spool import Record, Spool, read
from spectune.trainers.worker.messages import MemberReport, SlotCommand, SlotReport, TrialEnding
from tests.fakes.slots import specification


class FakeBoard:
    """Keeps the commands it is given, and what stood on the spool at that moment."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self.commands: dict[tuple[str, int], SlotCommand] = {}
        self.spooled: list[int] = []
        self.is_stopping = False

    def post(self, slot: str, number: int, command: SlotCommand) -> None:
        self.spooled.append(len(list(read(self._spool))))
        self.commands[slot, number] = command

    def stop(self) -> None:
        self.is_stopping = True


class FullDisk(Spool):
    """A spool on a disk that is full as soon as something is to be written."""

    def append(self, records: object) -> int:
        if records:
            raise OSError(28, "No space left on device")
        return 0


class Bench:
    """An event loop with everything around it, on a real ledger."""

    def __init__(self, folder: Path, spool: type[Spool] = Spool) -> None:
        self.path = folder / "spool-1.jsonl"
        self.ledger = Ledger.at(folder / "ledger.sqlite")
        self.ledger.create_campaign("c", name="test", specification={})
        self.attempt = self.ledger.begin_attempt("c")
        self.spool = spool(self.path)
        self.writer = Writer(self.ledger, "c", self.attempt)
        self.board = FakeBoard(self.path)
        one_arm = [{"optimizer": "muon", "space": "default"}]
        asked = specification(arms=one_arm, search={"sampler": "random", "points": 2}, stopping={"rule": "none"})
        arms = make_arms(asked)
        lanes = SlotCapacity(arms, members=1, num_slots=3)
        assignment = AssignmentMaker(asked).assignment
        scheduler = Scheduler(arms, lanes=lanes, assignment=assignment, now=lambda: 0)
        self.event_loop = EventLoop(scheduler, spool=self.spool, writer=self.writer, board=self.board)
        self.event_loop.start(Decision())

    def command(self, slot: str, number: int) -> SlotCommand:
        wait_until(lambda: (slot, number) in self.board.commands)
        return self.board.commands[slot, number]

    def close(self) -> None:
        self.event_loop.close()
        self.writer.close(timeout_seconds=5)
        self.spool.close()
        self.ledger.close()


def wait_until(condition: Callable[[], bool], *, timeout_seconds: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, FullDisk)
    yield bench
    bench.close()


def reached(trial: int, step: int) -> MemberReport:
    return MemberReport(trial, step, TrialEnding.REACHED, {"validation_loss": 1.0}, "", 0.5, 0)


def test_a_verdict_is_given_only_when_its_records_are_on_the_spool(bench: Bench) -> None:
    bench.event_loop.open_slot("s")
    (assignment,) = bench.command("s", 0).admit
    bench.event_loop.take("s", SlotReport(1, [reached(assignment.trial, 30)]))
    assert bench.command("s", 1) == SlotCommand()
    assert bench.board.spooled == [2, 3]  # drawn and started; observed


def test_what_was_decided_reaches_the_ledger(bench: Bench) -> None:
    bench.event_loop.open_slot("s")
    (assignment,) = bench.command("s", 0).admit
    bench.event_loop.take("s", SlotReport(1, [reached(assignment.trial, 30)]))
    wait_until(lambda: [each.step for each in bench.ledger.observations("c")] == [30])
    assert bench.ledger.trials("c")[0].state is TrialState.RUNNING


def test_a_full_disk_lets_every_slot_go_and_keeps_the_reason(full_disk: Bench) -> None:
    full_disk.event_loop.open_slot("s")
    assert full_disk.command("s", 0).finish
    assert full_disk.board.is_stopping
    assert isinstance(full_disk.event_loop.failure, OSError)
    assert full_disk.event_loop.num_slots_wanted() == 0
    full_disk.event_loop.close_slot("s")
    assert full_disk.event_loop.is_over()


def test_a_driver_that_is_fenced_lets_every_slot_go(bench: Bench) -> None:
    bench.ledger.begin_attempt("c")
    bench.event_loop.open_slot("s")
    wait_until(lambda: isinstance(bench.event_loop.failure, FencedError))
    wait_until(lambda: bench.command("s", 0).finish)


def test_slots_that_are_lost_again_and_again_before_any_report_end_the_attempt(bench: Bench) -> None:
    for number in range(MAX_BARREN_LOSSES):
        bench.event_loop.open_slot(f"s{number}")
        bench.event_loop.lose_slot(f"s{number}", "cannot import torch")
    wait_until(lambda: "cannot import torch" in str(bench.event_loop.failure))


def test_a_stop_is_carried_out_once(bench: Bench) -> None:
    bench.event_loop.open_slot("s")
    (assignment,) = bench.command("s", 0).admit
    for _ in range(3):
        bench.event_loop.stop(StopKind.CANCEL)
    bench.event_loop.take(
        "s", SlotReport(1, [MemberReport(assignment.trial, 7, TrialEnding.INTERRUPTED, {}, "", 0.1, 0)])
    )
    assert bench.command("s", 1).finish
    bench.event_loop.close_slot("s")
    wait_until(bench.event_loop.is_over)
    moved = [record for _, record in read(bench.path) if record["kind"] == "trial_moved"]
    assert [record["state"] for record in moved] == ["RUNNING", "CANCELLED"]


class FlakyLedger:
    """A ledger that refuses the first batches."""

    def __init__(self, num_refusals: int, refusal: Exception | None = None) -> None:
        self.num_refusals = num_refusals
        self.refusal = refusal or LedgerError("database is locked")
        self.batches: list[list[tuple[int, Record]]] = []

    def append(
        self, campaign_id: str, attempt: int, batch: list[tuple[int, Record]], *, spool_of: int | None = None
    ) -> None:
        if self.num_refusals:
            self.num_refusals -= 1
            raise self.refusal
        self.batches.append(batch)

    def beat(self, campaign_id: str, attempt: int) -> None:
        """Take the beat."""


@pytest.mark.parametrize("refusal", [OverflowError("too large"), FencedError("taken over")])
def test_a_writer_that_cannot_go_on_never_claims_to_be_complete(refusal: Exception) -> None:
    """An error that nobody expected ended the thread, and the campaign succeeded over a ledger that missed the rest."""
    writer = Writer(FlakyLedger(num_refusals=1, refusal=refusal), "c", 1)  # type: ignore[arg-type]
    writer.put(1, [{"a": 1}])
    assert not writer.close(timeout_seconds=5)
    assert writer.failure is refusal


def test_a_ledger_that_refuses_is_tried_again_and_nothing_is_lost() -> None:
    ledger = FlakyLedger(num_refusals=1)
    writer = Writer(ledger, "c", 1)  # type: ignore[arg-type]
    writer.put(1, [{"a": 1}])
    writer.put(2, [{"b": 2}, {"c": 3}])
    assert writer.close(timeout_seconds=10)
    assert [entry for batch in ledger.batches for entry in batch] == [(1, {"a": 1}), (2, {"b": 2}), (3, {"c": 3})]


def test_a_writer_that_cannot_write_says_so_when_it_is_closed_and_ends() -> None:
    writer = Writer(FlakyLedger(num_refusals=1000), "c", 1)  # type: ignore[arg-type]
    writer.put(1, [{"a": 1}])
    assert not writer.close(timeout_seconds=0.5)
    assert not any(thread.name == "ledger-writer" for thread in threading.enumerate())


def test_what_a_user_asks_of_the_ledger_reaches_whoever_decides_once(bench: Bench) -> None:
    told: list[list[int]] = []
    bench.writer.on_stops = lambda numbers: told.append(list(numbers))
    bench.event_loop.open_slot("s")
    (assignment,) = bench.command("s", 0).admit
    with ServiceLedger.at(bench.path.with_name("ledger.sqlite")) as service:
        wait_until(lambda: len(service.trials("c")) > 0)
        for _ in range(2):
            service.ask_to_stop("c", assignment.trial)
        wait_until(lambda: told == [[assignment.trial]])
        bench.event_loop.stop_trials([assignment.trial])
        bench.event_loop.take("s", SlotReport(1, [reached(assignment.trial, 30)]))
        wait_until(lambda: service.trial("c", assignment.trial).state is TrialState.CANCELLED)
        assert service.trial("c", assignment.trial).last_step == 30
        service.ask_to_stop("c", assignment.trial)  # once more is harmless
    time.sleep(1.2)
    assert len(told) == 1
