"""One attempt from claim to exit code: wires ledger, spool, scheduler, Ray and event loop, and tells the outcome."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from spectune.service.campaign.ending.budget import Exhausted, SpendingLimit, wall_seconds
from spectune.service.campaign.ending.conclusion import conclusion
from spectune.service.campaign.model.lifecycle import CampaignEvent, CampaignState
from spectune.service.campaign.specification.sections import ResourcesSection
from spectune.service.campaign.specification.specification import Specification
from spectune.service.data_directory import Access, DataDirectory
from spectune.service.driver.arms import Arm, make_arms
from spectune.service.driver.assignments import AssignmentMaker
from spectune.service.driver.cluster import living_machines
from spectune.service.driver.cluster_capacity import CapacityWait, waited_seconds
from spectune.service.driver.event_loop import ActorBoard, EventLoop
from spectune.service.driver.exit_codes import ExitCode
from spectune.service.driver.mailbox import start_board
from spectune.service.driver.scheduler import Scheduler
from spectune.service.driver.slot_capacity import SlotCapacity
from spectune.service.driver.stop_kinds import StopKind
from spectune.service.driver.tune_driver import run_slots
from spectune.service.driver.writer import Writer
from spectune.service.errors import FencedError, ServiceError
from spectune.service.ledger import Ledger
from spectune.service.ledger.recovery import import_earlier_spools
from spectune.service.ledger.spool import Spool
from spectune.trainers.worker.arithmetic import Arithmetic
from spectune.trainers.worker.slot import SlotOptions

CLOSE_SECONDS = 60.0
CHECKPOINT_SECONDS = 10.0

_log = logging.getLogger(__name__)


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


class DriverAttempt:
    """One attempt of a campaign.

    Args:
        ledger: The truth.
        specification: What the user asked for.
        data: Where files are.
        campaign_id: Which campaign.
        number: Which attempt.
        end_ray: Ends the Ray that runs around the attempt, or leaves it; called where the outcome must wait for that.
        cluster_cpus: How many CPUs of the Ray cluster whose job this is may be used; None for a Ray of one's own.
        access: Who may read what workers write.
    """

    def __init__(
        self,
        ledger: Ledger,
        specification: Specification,
        *,
        data: DataDirectory,
        campaign_id: str,
        number: int,
        end_ray: Callable[[], None],
        cluster_cpus: int | None = None,
        access: Access = Access.OWNER,
    ) -> None:
        self._ledger = ledger
        self._specification = specification
        self._data = data
        self._campaign_id = campaign_id
        self._number = number
        self._end_ray = end_ray
        self._access = access
        self._is_job = cluster_cpus is not None
        self._num_workers = _num_workers(specification.resources, cluster_cpus)
        self._capacity = CapacityWait(
            ledger, campaign_id, number, resources=specification.resources, machines=living_machines
        )
        self._stopped = threading.Event()
        self._event_loop: EventLoop | None = None
        self._stop: StopKind | None = None
        self._stop_asked_at: float | None = None

    def stop(self, kind: StopKind) -> None:
        """Stop the campaign cleanly; may be called at any time, from a signal handler or any thread."""
        if self._stop is None:
            self._stop, self._stop_asked_at = kind, time.monotonic()
            self._stopped.set()
        if self._event_loop is not None:
            self._event_loop.stop(self._stop)

    def stop_as_asked(self) -> None:
        """Stop as the ledger says: a cancelled campaign cancels, any other pauses and keeps its checkpoints."""
        try:
            state = self._ledger.campaign(self._campaign_id).state
        except ServiceError:  # what it was is settled by whoever told us to stop
            state = None
        self.stop(StopKind.CANCEL if state is CampaignState.CANCELLING else StopKind.PAUSE)

    def run(self) -> ExitCode:
        """Run the attempt, which has the campaign already, to its end.

        Raises:
            FencedError: Another driver has taken the campaign.
        """
        import_earlier_spools(self._ledger, self._campaign_id, attempt=self._number, spool=self._data.spool)
        arms = make_arms(self._specification)
        maker = AssignmentMaker(self._specification)
        lanes = SlotCapacity(arms, members=self._specification.members(), num_slots=self._num_workers)
        for event in self._ledger.events(self._campaign_id, "shrunk"):
            lanes.bound(event.body["arm"], event.body["members"])
        scheduler = Scheduler(
            arms,
            lanes=lanes,
            assignment=maker.assignment,
            now=_milliseconds,
            limit=self._limit_from_now(),
            shares_seconds=self._specification.budget.is_in_seconds,
        )
        first = scheduler.restore(self._ledger.trials(self._campaign_id), self._ledger.observations(self._campaign_id))
        spool = Spool(self._data.spool(self._campaign_id, self._number))
        writer = Writer(self._ledger, self._campaign_id, self._number)
        board = start_board()
        event_loop = EventLoop(scheduler, spool=spool, writer=writer, board=ActorBoard(board))
        event_loop.start(first)
        self._event_loop = event_loop
        writer.on_stops = event_loop.stop_trials
        if self._stop is not None:
            event_loop.stop(self._stop)
        self._capacity.wait(is_over=event_loop.is_over, woken=self._stopped)
        if not event_loop.is_over():
            self._run_slots(event_loop, board)
        event_loop.close()
        spool.close()
        is_complete = writer.close(timeout_seconds=CLOSE_SECONDS)
        if self._stop is not None:  # else what is done is done, and need not wait until Ray's own processes have ended
            self._end_ray()
        return self._conclude(event_loop, writer, is_complete, scheduler.exhausted, arms)

    def _run_slots(self, event_loop: EventLoop, board: object) -> None:
        resources = self._specification.resources
        run_slots(
            event_loop,
            board=board,
            num_workers=self._num_workers,
            options=SlotOptions(
                checkpoints=str(self._data.checkpoints(self._campaign_id)),
                folder=f"attempt-{self._number}",
                checkpoint_seconds=CHECKPOINT_SECONDS,
                cpus=resources.cpus,
                gpus=resources.gpus,
                verify_fusion=self._specification.verify_fusion,
                arithmetic=Arithmetic(self._specification.arithmetic),
                working_folder="" if os.environ.get("RAY_ADDRESS") else os.getcwd(),
                file_mask=self._access.mask,
                output=str(self._data.output(self._campaign_id) / f"attempt-{self._number}"),
            ),
            folder=self._data.tune(self._campaign_id, self._number),
            stop_asked_at=lambda: self._stop_asked_at or event_loop.limited_at,
        )

    def _limit_from_now(self) -> SpendingLimit:
        """Make the budget's check; the clock of this attempt starts now, after those of the attempts before.

        Waiting for capacity costs nothing.
        """
        start = time.monotonic()
        spans = self._ledger.attempt_spans(self._campaign_id, before=self._number)
        explained = self._ledger.events(self._campaign_id, "attempt_explained")
        waited = waited_seconds(explained, {number: ended for number, (_, ended) in spans.items()})
        before = wall_seconds(spans.values(), now=_milliseconds()) - waited
        return SpendingLimit(
            self._specification, wall_seconds=lambda: before + time.monotonic() - start - self._capacity.seconds
        )

    def _conclude(
        self, event_loop: EventLoop, writer: Writer, is_complete: bool, spent: Exhausted | None, arms: Sequence[Arm]
    ) -> ExitCode:
        """Turn how the attempt went into the campaign's state and an exit code."""
        failure = event_loop.failure or writer.failure
        if isinstance(failure, FencedError):
            raise failure
        if failure is not None or not is_complete:
            _log.error("the attempt cannot go on: %s", failure or "the ledger does not hold everything")
            return ExitCode.INFRASTRUCTURE
        match self._stop:
            case StopKind.CANCEL:
                return ExitCode.CANCELLED
            case StopKind.PAUSE if self._is_job and not self._is_pausing():  # the cluster goes, nobody else asked
                return ExitCode.INFRASTRUCTURE
            case StopKind.PAUSE:
                self._move(CampaignEvent.PAUSE, "driver_asked", "the driver was asked to pause, or lost its owner")
                self._move(CampaignEvent.HALT, "driver_asked", "the driver was asked to pause, or lost its owner")
                return ExitCode.PAUSED
        event, reason, message = conclusion(
            [arm.name for arm in self._specification.arms],
            self._ledger.trials(self._campaign_id),
            metric=self._specification.objective.metric,
            has_finite=any(arm.best is not None for arm in arms),
            spent=spent,
        )
        self._move(event, reason, message)
        return ExitCode.DONE

    def _is_pausing(self) -> bool:
        return self._ledger.campaign(self._campaign_id).state is CampaignState.PAUSING

    def _move(self, event: CampaignEvent, reason: str, message: str) -> None:
        self._ledger.move_campaign(self._campaign_id, event, reason=reason, message=message, attempt=self._number)


def _num_workers(resources: ResourcesSection, cluster_cpus: int | None) -> int:
    """Count the workers at a time: a cluster that is too small has fewer than were asked for."""
    if cluster_cpus is None:
        return resources.workers
    return min(resources.workers, max(1, cluster_cpus // resources.cpus))
