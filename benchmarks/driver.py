"""Time what the driver adds to training: decisions, spool and ledger, with trials that train nothing.

    python -m benchmarks.driver [--trials 10000] [--reports 20] [--members 256] [--slots 2] [--json FILE]

Slots without processes answer every command at once, so that the driver is never waited for. Shown are milliseconds of
wall time for each report of a member, reports a second into the ledger until it holds all of them, and, from a second
run under tracemalloc, the bytes that the driver keeps for each trial when all have ended.
"""

from __future__ import annotations

import argparse
import queue
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from benchmarks.kept import keep
from spectune.service.campaign.specification.specification import Specification, parse
from spectune.service.driver.arms import make_arms
from spectune.service.driver.assignments import AssignmentMaker
from spectune.service.driver.decision import Decision
from spectune.service.driver.event_loop import EventLoop
from spectune.service.driver.scheduler import Scheduler
from spectune.service.driver.slot_capacity import SlotCapacity
from spectune.service.driver.writer import Writer
from spectune.service.ledger import Ledger
from spectune.service.ledger.spool import Spool
from spectune.trainers.worker.messages import Assignment, MemberReport, SlotCommand, SlotReport, TrialEnding

METRICS = {
    "loss": 0.5,
    "validation_loss": 0.25,
    "lr": 0.01,
    "step_time_seconds": 1e-4,
    "throughput": 1e4,
    "optimizer_share": 0.5,
    "timing_valid": 0.0,
}


class NullSlot:
    """A slot whose members report without training."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._assignments: dict[int, Assignment] = {}
        self._reported: dict[int, int] = {}
        self._number = 0

    def follow(self, command: SlotCommand) -> SlotReport | None:
        """Return the next report; None at the end."""
        for trial in command.evict:
            del self._assignments[trial]
        if command.finish:
            return None
        for assignment in command.admit:
            self._assignments[assignment.trial] = assignment
            self._reported[assignment.trial] = 0
        self._number += 1
        return SlotReport(self._number, [self._report(each) for each in self._assignments.values()])

    def _report(self, assignment: Assignment) -> MemberReport:
        place = self._reported[assignment.trial]
        self._reported[assignment.trial] += 1
        step = assignment.report_steps[place]
        return MemberReport(assignment.trial, step, TrialEnding.REACHED, dict(METRICS), "", 1e-3, 1_000_000)


class LoopBoard:
    """A board that hands commands to the slots of this process."""

    def __init__(self) -> None:
        self.commands: queue.SimpleQueue[tuple[str, SlotCommand]] = queue.SimpleQueue()

    def post(self, slot: str, number: int, command: SlotCommand) -> None:
        """Give a command."""
        self.commands.put((slot, command))

    def stop(self) -> None:
        """Nothing is interrupted here."""


def campaign(*, num_trials: int, num_reports: int, num_slots: int, members: int) -> Specification:
    """Make a campaign of one arm."""
    return parse(
        {
            "name": "null",
            "task": {"name": "matrix_completion", "rows": 8, "columns": 6, "rank": 1, "steps": num_reports * 10},
            "objective": {"metric": "validation_loss", "mode": "minimize", "every_steps": 10},
            "arms": [{"optimizer": "muon", "space": {"lr": {"log_uniform": [1e-3, 1.0]}}}],
            "search": {"sampler": "random", "points": num_trials},
            "resources": {"workers": num_slots, "members": members},
        }
    )


def measure(specification: Specification, folder: Path) -> dict[str, float]:
    """Run the campaign; give what the table shows."""
    kept_before, _ = tracemalloc.get_traced_memory()
    num_reports = specification.search.points * len(specification.report_steps())
    with Ledger.at(folder / "ledger.sqlite") as ledger:
        ledger.create_campaign("c", name="null", specification=specification.document())
        attempt = ledger.begin_attempt("c")
        writer, board, arms = Writer(ledger, "c", attempt), LoopBoard(), make_arms(specification)
        num_slots = specification.resources.workers
        lanes = SlotCapacity(arms, members=specification.members(), num_slots=num_slots)
        maker = AssignmentMaker(specification)
        scheduler = Scheduler(arms, lanes=lanes, assignment=maker.assignment, now=lambda: 1_000_000)
        spool = Spool(folder / "spool.jsonl")
        event_loop = EventLoop(scheduler, spool=spool, writer=writer, board=board)
        start, used = time.perf_counter(), time.process_time()
        event_loop.start(Decision())
        _train(event_loop, board, num_slots=num_slots)
        decided = time.perf_counter() - start
        assert writer.close(timeout_seconds=600), f"the writer failed: got {writer.failure}"
        entered, cpu = time.perf_counter() - start, time.process_time() - used
        kept, _ = tracemalloc.get_traced_memory()
        event_loop.close()
        spool.close()
        held = len(ledger.observations("c"))
    assert held == num_reports, f"the ledger must hold {num_reports} reports: got {held}"
    return {
        "reports": num_reports,
        "ms_per_report": 1e3 * decided / num_reports,
        "cpu_ms_per_report": 1e3 * cpu / num_reports,
        "reports_per_second_into_ledger": num_reports / entered,
        "bytes_per_trial": (kept - kept_before) / specification.search.points,
    }


def _train(event_loop: EventLoop, board: LoopBoard, *, num_slots: int) -> None:
    slots = {f"slot-{index}": NullSlot(f"slot-{index}") for index in range(num_slots)}
    for name in slots:
        event_loop.open_slot(name)
    while slots:
        name, command = board.commands.get(timeout=60)
        report = slots[name].follow(command)
        if report is None:
            event_loop.close_slot(name)
            del slots[name]
        else:
            event_loop.take(name, report)
    assert event_loop.failure is None, f"the event loop failed: got {event_loop.failure}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--reports", type=int, default=20)
    parser.add_argument("--members", type=int, default=256)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    specification = campaign(
        num_trials=arguments.trials,
        num_reports=arguments.reports,
        num_slots=arguments.slots,
        members=arguments.members,
    )
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        line: dict[str, Any] = measure(specification, Path(folder))
        tracemalloc.start()
        line["bytes_per_trial"] = measure(specification, Path(other))["bytes_per_trial"]
        tracemalloc.stop()
    line |= {"trials": arguments.trials, "members": arguments.members, "slots": arguments.slots}
    for name, value in line.items():
        print(f"{name:32} {value:12.4g}" if isinstance(value, float) else f"{name:32} {value:12}")
    if arguments.json is not None:
        keep(arguments.json, line)


if __name__ == "__main__":
    main()
