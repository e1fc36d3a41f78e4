"""A world in which the service can be killed at any point: before or after every transaction and every launch.

Time is simulated. Drivers are small machines that claim, work and end; they live on when the service dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, literal

from spectune.service.campaign.model.lifecycle import CampaignEvent
from spectune.service.control.admission import Capacity
from spectune.service.control.loop import Reconciler
from spectune.service.data_directory import DataDirectory
from spectune.service.driver.exit_codes import ExitCode
from spectune.service.errors import FencedError, IllegalTransitionError, LauncherError
from spectune.service.ledger import ServiceLedger

SPECIFICATION = {"name": "x", "resources": {"workers": 1, "cpus": 1}}
KILLED = -9


class ServiceKilled(BaseException):
    """The service's process is killed here."""


@dataclass
class World:
    """Time, drivers, and the points at which the service is killed.

    Attributes:
        kill_at: Numbers of the points at which it is.
        plans: For each launch that gets to work, in order: after how many ticks its driver dies; 0 for not at all.
    """

    folder: Path
    kill_at: set[int] = field(default_factory=set)
    plans: list[int] = field(default_factory=list)
    time: int = 1_000_000
    point: int = 0
    drivers: list[FakeDriver] = field(default_factory=list)
    is_watched: bool = False
    launch_problem: str | None = None

    def __post_init__(self) -> None:
        self.ledger = SimulatedLedger(self)
        self.reconciler = self.new_service()

    def new_service(self) -> Reconciler:
        """Start the service afresh; it knows nothing of the one before."""
        data, capacity = DataDirectory(self.folder), Capacity(num_cpus=2, max_running=2)
        holder = f"service-{self.point}"
        return Reconciler(self.ledger, FakeLauncher(self), data=data, capacity=capacity, holder=holder)

    def tick(self) -> None:
        """Let two seconds pass: the service looks, unless it is killed, and drivers go on."""
        self.time += 2000
        self.is_watched = True
        try:
            self.reconciler.tick()
        except ServiceKilled:
            self.reconciler = self.new_service()
        finally:
            self.is_watched = False
        for driver in self.drivers:
            driver.tick()
        for campaign_id in {driver.campaign_id for driver in self.drivers}:
            working = [each for each in self.drivers if each.campaign_id == campaign_id and each.is_working]
            assert len(working) <= 1, f"a campaign runs twice: got {working}"

    def pass_point(self) -> None:
        """Be killed here, if so planned."""
        if self.is_watched:
            self.point += 1
            if self.point in self.kill_at:
                raise ServiceKilled


class SimulatedLedger(ServiceLedger):
    """A ledger in memory with simulated time, before and behind whose transactions the service may die."""

    def __init__(self, world: World) -> None:
        super().__init__("sqlite://", now=lambda: world.time)
        self._world = world

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        self._world.pass_point()
        with super()._transaction() as connection:
            yield connection
        self._world.pass_point()

    def _clock(self) -> ColumnElement[int]:
        return literal(self._world.time)


@dataclass
class FakeDriver:
    """A driver's process.

    Attributes:
        dies_after: Ticks of work; 0 for never.
        work: Ticks of work that its campaign needs.
    """

    world: World
    campaign_id: str
    attempt: int
    is_working: bool = False
    has_claimed: bool = False
    exit_code: int | None = None
    asked: CampaignEvent | None = None
    dies_after: int = 0
    work: int = 9  # longer than a lease, so that others take over in its middle
    worked: int = 0

    def tick(self) -> None:
        """Go on for a while."""
        if self.exit_code is not None:
            return
        if not self.has_claimed:
            self._claim()
        elif self.asked is CampaignEvent.CANCEL:
            self._end(ExitCode.CANCELLED)
        elif self.asked is CampaignEvent.PAUSE:
            self._finish([CampaignEvent.PAUSE, CampaignEvent.HALT], ExitCode.PAUSED)
        else:
            self._work()

    def _claim(self) -> None:
        ledger = self.world.ledger
        try:
            ledger.claim_attempt(self.campaign_id, self.attempt)
            ledger.move_campaign(self.campaign_id, CampaignEvent.CLAIM, reason="started", attempt=self.attempt)
            self.has_claimed = self.is_working = True
            self.dies_after = self.world.plans.pop(0) if self.world.plans else 0
        except FencedError:
            self._end(ExitCode.FENCED)
        except IllegalTransitionError:
            self._end(ExitCode.INFRASTRUCTURE)

    def _work(self) -> None:
        self.worked += 1
        self.world.ledger.beat(self.campaign_id, self.attempt)
        if self.worked == self.dies_after:
            self._end(KILLED)
        elif self.worked >= self.work:
            self._finish([CampaignEvent.SUCCEED], ExitCode.DONE)

    def _finish(self, events: list[CampaignEvent], code: int) -> None:
        try:
            for event in events:
                self.world.ledger.move_campaign(self.campaign_id, event, reason="driver", attempt=self.attempt)
            self._end(code)
        except FencedError:
            self._end(ExitCode.FENCED)
        except IllegalTransitionError:
            self._end(ExitCode.INFRASTRUCTURE)

    def _end(self, code: int) -> None:
        self.is_working = False
        self.exit_code = int(code)

    def poll(self) -> int | None:
        if self.world.launch_problem is not None:
            raise LauncherError(self.world.launch_problem)
        return self.exit_code

    def request_stop(self) -> None:
        self.asked = CampaignEvent.CANCEL

    def request_pause(self) -> None:
        self.asked = CampaignEvent.PAUSE

    def kill(self) -> None:
        if self.exit_code is None:
            self._end(KILLED)


class FakeLauncher:
    """Starts fake drivers, which anybody can find again."""

    sees_processes = True

    def __init__(self, world: World) -> None:
        self._world = world

    def problem(self) -> str | None:
        return self._world.launch_problem

    def launch(self, campaign_id: str, attempt: int) -> FakeDriver:
        self._world.pass_point()
        driver = FakeDriver(self._world, campaign_id, attempt)
        self._world.drivers.append(driver)
        self._world.pass_point()
        return driver

    def find(self, campaign_id: str, attempt: int) -> FakeDriver | None:
        living = [each for each in self._all(campaign_id, attempt) if each.exit_code is None]
        return living[0] if living else None

    def exit_code(self, campaign_id: str, attempt: int) -> int | None:
        ended = [each.exit_code for each in self._all(campaign_id, attempt) if each.exit_code is not None]
        return ended[-1] if ended and ended[-1] != KILLED else None

    def end_remains(self, campaign_id: str, attempt: int) -> list[str]:
        for driver in self._all(campaign_id, attempt):
            driver.kill()
        return []

    def _all(self, campaign_id: str, attempt: int) -> list[FakeDriver]:
        return [each for each in self._world.drivers if (each.campaign_id, each.attempt) == (campaign_id, attempt)]
